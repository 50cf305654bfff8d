"""The prior of DGA: its share of the target's histogram, and what its updates can do to it."""

from types import SimpleNamespace

import numpy as np
import pytest

from data_catalog.errors import UserError
from data_catalog.format.distributions import Basis
from tests.helpers.tiny_observation import seeing
from trainer.config import Train
from trainer.inputs import Inputs
from trainer.mixers import uniform_state
from trainer.mixers.ado import Ado
from trainer.mixers.choose import require_movement
from trainer.mixers.dga import Dga
from trainer.mixers.prior import automatic_share, mean_epochs, member_prior, wanted_shares
from trainer.mixers.simplex import divergence

PRIOR = np.array([0.5, 0.3, 0.2])


def updates_until_even(mixer: Dga, lead: int) -> int:
    """Return the number of updates that a member needs to lose a lead of `lead` updates."""
    state = uniform_state(2)
    for _ in range(lead):
        state = mixer.propose(state, seeing([0.05, 0.0]))
    updates = 0
    while state.alpha[0] > 0.5:
        state = mixer.propose(state, seeing([0.0, 0.05]))
        updates += 1
    return updates


@pytest.mark.parametrize("limit", [{"pull": 0.05}, {"maximum_tilt": 0.5}, {"maximum_tilt": 0.05}])
def test_a_member_that_led_for_long_is_left_quickly(limit: dict[str, float]) -> None:
    assert updates_until_even(Dga(eta=1.5, ema=0.1, **limit), lead=300) <= 50
    assert updates_until_even(Dga(eta=1.5, ema=0.1), lead=300) == pytest.approx(300, abs=2)


def test_the_pull_by_hand() -> None:
    mixer = Dga(eta=np.log(2), ema=1.0, prior=PRIOR, pull=0.25)
    state = mixer.start(3)
    assert state.alpha == pytest.approx(PRIOR)
    state = mixer.propose(state, seeing([0.0, 0.0, 1.0]))
    ascended = np.array([0.5, 0.3, 0.4]) / 1.2
    assert state.alpha == pytest.approx(0.75 * ascended + 0.25 * PRIOR)
    assert state.sampling == pytest.approx(state.alpha)


def test_without_differences_the_weights_return_to_the_prior() -> None:
    mixer = Dga(eta=1.0, ema=0.5, prior=PRIOR, pull=0.1)
    state = mixer.start(3)
    for scores in [*([[0, 0, 3]] * 20), *([[1, 1, 1]] * 200)]:
        state = mixer.propose(state, seeing(scores))
    assert state.sampling == pytest.approx(PRIOR, abs=1e-6)


def test_the_weights_never_leave_the_trust_region() -> None:
    draws = np.random.default_rng(0)
    mixer = Dga(eta=2.0, ema=1.0, prior=PRIOR, maximum_tilt=0.1)
    state, largest = mixer.start(3), 0.0
    for _ in range(50):
        state = mixer.propose(state, seeing(draws.normal(size=3)))
        largest = max(largest, divergence(state.log_alpha, np.log(PRIOR)))
        assert state.alpha.sum() == pytest.approx(1.0)
    assert largest == pytest.approx(0.1, rel=1e-6)


def test_the_border_of_the_trust_region_keeps_the_direction() -> None:
    mixer = Dga(eta=5.0, ema=1.0, prior=PRIOR, maximum_tilt=0.01)
    tilt = np.log(mixer.propose(mixer.start(3), seeing([1.0, 0.0, -1.0])).alpha / PRIOR)
    assert tilt[0] - tilt[1] == pytest.approx(tilt[1] - tilt[2])
    assert tilt[0] > tilt[1]


def test_a_member_without_prior_weight_stays_out_of_a_trust_region() -> None:
    mixer = Dga(eta=5.0, ema=1.0, prior=np.array([0.5, 0.5, 0.0]), maximum_tilt=0.1)
    state = mixer.start(3)
    for _ in range(5):
        state = mixer.propose(state, seeing([0.0, 0.0, 9.0]))
    assert state.alpha == pytest.approx([0.5, 0.5, 0.0])


def test_epochs_are_averaged_over_a_distribution() -> None:
    sequences, target = np.array([10, 90]), np.array([1.0, 0.0])
    assert mean_epochs(target, target, sequences, draws=200) == pytest.approx(20)
    assert mean_epochs(target, sequences / 100, sequences, draws=200) == pytest.approx(2)


def test_the_targets_share_shrinks_with_their_repetition() -> None:
    sequences, drawn = np.array([10, 90, 0]), np.array([1.0, 3.0, 0.0])
    assert automatic_share(drawn, sequences, draws=40) == 0.98
    assert automatic_share(drawn, sequences, draws=80) == 0.98
    assert automatic_share(drawn, sequences, draws=1_000) == pytest.approx(1 - 0.1 * 900 / 1_000)
    assert automatic_share(drawn, sequences, draws=10**9) == pytest.approx(0.9)


def test_the_prior_over_distributions() -> None:
    law = {"law": 1.0}
    prior = member_prior(["law", "natural", "other", "uniform"], law, 0.25)
    assert prior.sum() == pytest.approx(1.0)
    assert prior[0] / prior[1] < 1 / 2
    assert prior[2] == prior[3] > 0
    assert member_prior(["other", "uniform"], law, 0.25).tolist() == [0.5, 0.5]
    assert member_prior(["law", "other"], law, 0.25)[0] > 0.9


def test_several_targets_share_the_prior_and_general_is_natural() -> None:
    targets = {"law": 0.5, "general": 0.3, "math": 0.2}
    wanted = wanted_shares(targets, 0.8)
    assert wanted == pytest.approx({"law": 0.4, "math": 0.16, "natural": 0.44})
    prior = member_prior(["math", "law", "natural"], targets, 0.8)
    assert prior == pytest.approx(0.98 * np.array([0.16, 0.4, 0.44]) + 0.02 / 3)


def movement(**mixture: object) -> None:
    config = Train.model_validate(
        {
            "catalog": "c",
            "out": "o",
            "target": "t",
            "mixture": {"eta": 1.5, "scores": "target", **mixture},
        }
    )
    settings = config.mixture
    assert settings.eta
    mixer = Dga(settings.eta, settings.ema, pull=settings.pull)
    require_movement(config, mixer, mixer.start(22), updates=9)


@pytest.mark.parametrize(
    "mixture",
    [
        {"eta": 0.001},
        {"ema": 0.0001},
        {"eta": 0.01, "pull": 0.9},
        {"scores": "clipped", "eta": 0.001},
    ],
)
def test_a_plan_that_cannot_move_the_weights_is_refused(mixture: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"Raise mixture\.eta, mixture\.ema"):
        movement(**mixture)


@pytest.mark.parametrize("mixture", [{}, {"pull": 0.05}, {"scores": "raw", "eta": 1e-9}])
def test_other_plans_are_accepted(mixture: dict[str, object]) -> None:
    movement(**mixture)


def test_a_plan_without_an_update_is_refused() -> None:
    config = Train.model_validate(
        {"catalog": "c", "out": "o", "target": "t", "mixture": {"mixer": "ado"}}
    )
    with pytest.raises(UserError, match="no update is made"):
        require_movement(config, Dga(1.5, 0.1), uniform_state(3), updates=0)


@pytest.mark.parametrize(
    ("basis", "prior"), [("domains", [0.1, 0.3, 0.6]), ("distributions", [1 / 3, 1 / 3, 1 / 3])]
)
def test_only_domains_have_sizes_that_ado_starts_from(basis: str, prior: list[float]) -> None:
    """The leaves that these distributions touch have 10, 40 and 100 tokens, which means nothing."""
    overlapping = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.1, 0.1, 0.8]])
    matrix = np.eye(3) if basis == "domains" else overlapping
    mixture = {"mixer": "ado", "basis": basis}
    config = Train.model_validate({"catalog": "c", "out": "o", "target": "t", "mixture": mixture})
    inputs = object.__new__(Inputs)  # without the other fields
    corpus = SimpleNamespace(tokens=lambda: np.array([10.0, 30.0, 60.0]))
    vars(inputs).update(corpus=corpus, basis=Basis(("a", "b", "c"), matrix))
    mixer, state = inputs.mixer(config)
    assert isinstance(mixer, Ado)
    assert state.sampling == pytest.approx(prior)
    assert mixer.first_step == config.optimizer.warmup_steps
