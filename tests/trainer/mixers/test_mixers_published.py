"""Rules of other papers, compared with their published updates in plain arithmetic."""

import math
from functools import partial

import numpy as np
import pytest

from data_catalog.settings import parse
from tests.helpers.tiny_observation import seeing
from trainer.config import Train
from trainer.mixers import Mixer, MixerState, uniform_state
from trainer.mixers.ado import MAXIMUM_LOSSES, Ado, preferred
from trainer.mixers.choose import make_mixer
from trainer.mixers.dga import Dga
from trainer.mixers.doge import Doge
from trainer.mixers.doremi import DoReMi
from trainer.mixers.fixed import Static
from trainer.mixers.odm import Odm, exploration
from trainer.mixers.scaling_law import fit
from trainer.mixers.simplex import final_weights
from trainer.model.optimizer import learning_rate_at


def test_doge_trace():
    # lr / mu = log 2, and scores are clipped to [0, 5]. (1, 2, -4) multiplies by (2, 4, 1), then
    # (9, 0, 0) by (32, 1, 1).
    mixer = Doge(lambda step: 0.05 * math.log(2), mu=0.05)
    first = mixer.propose(mixer.start(3), seeing([1.0, 2.0, -4.0]))
    np.testing.assert_allclose(first.sampling, [2 / 7, 4 / 7, 1 / 7], rtol=1e-14)
    second = mixer.propose(first, seeing([9.0, 0.0, 0.0]))
    np.testing.assert_allclose(second.sampling, [64 / 69, 4 / 69, 1 / 69], rtol=1e-14)
    np.testing.assert_allclose(
        final_weights(second),
        [(2 / 7 + 64 / 69) / 2, (4 / 7 + 4 / 69) / 2, (1 / 7 + 1 / 69) / 2],
        rtol=1e-14,
    )


def test_doge_step_is_proportional_to_the_learning_rate_and_interval():
    rising = Doge(lambda step: 1e-3 * step, mu=0.01, every_steps=10)
    state = rising.propose(uniform_state(2), seeing([0.5, 0.0], step=3))
    assert math.log(state.alpha[0] / state.alpha[1]) == pytest.approx(
        10 * 3e-3 / 0.01 * 0.5, rel=1e-12
    )


def test_doremi_trace():
    # The excess (log 2, 0, log 3) multiplies by (2, 1, 3). Then 1e-4 is spread evenly. The next
    # step starts from the result.
    mixer = DoReMi()
    first = mixer.propose(mixer.start(3), seeing(excess=[math.log(2), 0.0, math.log(3)]))
    smooth = [0.9999 * share + 0.0001 / 3 for share in (2 / 6, 1 / 6, 3 / 6)]
    np.testing.assert_allclose(first.sampling, smooth, rtol=1e-14)
    second = mixer.propose(first, seeing(excess=[0.0, math.log(5), 0.0]))
    total = smooth[0] + 5 * smooth[1] + smooth[2]
    again = [0.9999 * share / total + 0.0001 / 3 for share in (smooth[0], 5 * smooth[1], smooth[2])]
    np.testing.assert_allclose(second.sampling, again, rtol=1e-14)
    np.testing.assert_allclose(
        final_weights(second), [(a + b) / 2 for a, b in zip(smooth, again, strict=True)], rtol=1e-14
    )


def doremi_of_every_step(excess: np.ndarray, steps: int) -> np.ndarray:
    """Return the weights after each step, as `update_domain_weights` of the released code has them.

    Source: github.com/sangmichaelxie/doremi, doremi/trainer.py at 7cde52d, with its defaults
    `reweight_eta` 1 and `reweight_eps` 1e-4.
    """
    weights, path = np.full(len(excess), 1 / len(excess)), []
    for _ in range(steps):
        weights = weights * np.exp(excess)
        weights = 0.9999 * weights / weights.sum() + 0.0001 / len(excess)
        path.append(weights)
    return np.array(path)


@pytest.mark.parametrize(("every", "updates"), [(1, 1000), (10, 100), (100, 10)])
def test_doremi_moves_as_fast_as_published_at_any_cadence(every, updates):
    excess = np.linspace(0.0, 0.2, 22)
    published = doremi_of_every_step(excess, every * updates)[every - 1 :: every]
    mixer, state = DoReMi(every_steps=every), uniform_state(22)
    for weights in published:
        state = mixer.propose(state, seeing(excess=excess))
        np.testing.assert_allclose(state.sampling, weights, rtol=1e-9)
    assert final_weights(state)[-1] > 0.85  # 0.88 if measured at every step


def test_final_weights_are_the_average_or_the_last_sampling_weights():
    mixer, state = DoReMi(), uniform_state(2)
    seen = []
    for step in range(7):
        state = mixer.propose(state, seeing(excess=[0.1 * (step % 3), 0.2]))
        seen.append(state.sampling)
    np.testing.assert_allclose(final_weights(state), np.mean(seen, axis=0), rtol=1e-13)
    plain = Dga(eta=1.0, ema=0.1).propose(uniform_state(2), seeing([1.0, 0.0]))
    assert final_weights(plain) is plain.sampling


def odm_of_every_step(losses: np.ndarray) -> list[np.ndarray]:
    """Return the weights after each step, as `group_update` of the released code has them.

    Source: github.com/alon-albalak/online-data-mixing, megatron/data/data_sampling_utils.py at
    edbfdad, `SmoothedMeanWeightUpdater`, which megatron/training.py calls.
    """
    members, path = losses.shape[1], []
    rewards, even = np.zeros(members), 1 / members
    for iteration, loss in enumerate(losses, start=1):
        before, even = even, min(1 / members, math.sqrt(math.log(members) / (members * iteration)))
        rewards = 0.9 * rewards + 0.1 * np.exp(loss)
        scale = (1 - members * even) / (rewards * before).sum()
        path.append(rewards * before * scale + even)
    return path


def test_linear_odm_equals_the_released_rule_at_every_step():
    losses = 4.0 + np.random.default_rng(0).normal(size=(60, 5))
    mixer, state = Odm(), uniform_state(5)
    for step, expected in enumerate(odm_of_every_step(losses), start=1):
        state = mixer.propose(state, seeing(losses=losses[step - 1], step=step))
        np.testing.assert_allclose(state.sampling, expected, rtol=1e-12)


def test_a_measured_loss_of_linear_odm_stands_for_the_steps_since_the_last():
    # The released rule at every step, with the losses of steps 3, 6, 9, ... seen three times.
    losses = np.repeat(4.0 + np.random.default_rng(1).normal(size=(20, 5)), 3, axis=0)
    mixer, state = Odm(every_steps=3), uniform_state(5)
    for step, expected in list(enumerate(odm_of_every_step(losses), start=1))[2::3]:
        state = mixer.propose(state, seeing(losses=losses[step - 1], step=step))
        np.testing.assert_allclose(state.sampling, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("form", "least", "most"), [("linear", 4.0, 4.5), ("exponential", 1.0, 1.1)]
)
def test_only_exponential_odm_fades_to_even_weights(form, least, most):
    mixer, state = Odm(form, every_steps=1000), uniform_state(22)
    for step in range(1000, 101_000, 1000):
        state = mixer.propose(state, seeing(losses=np.linspace(3.0, 4.5, 22), step=step))
    assert least < state.sampling[-1] / state.sampling[0] < most


def test_exponential_odm_trace():
    mixer = Odm("exponential", every_steps=100)
    first = mixer.propose(mixer.start(2), seeing(losses=[math.log(20), math.log(10)], step=100))
    # rewards 0.1 * (20, 10) = (2, 1)
    before, now = math.sqrt(math.log(2) / (2 * 99)), math.sqrt(math.log(2) / (2 * 100))
    high = math.exp(2 * before) / (math.exp(2 * before) + math.exp(before))
    np.testing.assert_allclose(
        first.sampling, [(1 - 2 * now) * high + now, (1 - 2 * now) * (1 - high) + now], rtol=1e-14
    )
    second = mixer.propose(first, seeing(losses=[0.0, math.log(40)], step=200))
    # rewards 0.9 * (2, 1) + 0.1 * (1, 40) = (1.9, 4.9)
    before, now = math.sqrt(math.log(2) / (2 * 199)), math.sqrt(math.log(2) / (2 * 200))
    high = math.exp(1.9 * before) / (math.exp(1.9 * before) + math.exp(4.9 * before))
    np.testing.assert_allclose(
        second.sampling, [(1 - 2 * now) * high + now, (1 - 2 * now) * (1 - high) + now], rtol=1e-14
    )


def test_odm_explores_evenly_at_first():
    assert [exploration(4, step) for step in (0, 1, 5)] == [
        0.25,
        0.25,
        0.25,
    ]  # sqrt(ln 4 / (4 * 5)) = 0.263
    assert exploration(4, 6) == pytest.approx(math.sqrt(math.log(4) / 24))
    first = Odm("exponential").propose(
        uniform_state(4), seeing(losses=[9.0, 1.0, 1.0, 1.0], step=5)
    )
    np.testing.assert_allclose(first.sampling, 0.25, rtol=1e-14)


TOKENS = np.geomspace(1e5, 1e8, 40)


@pytest.mark.parametrize(
    ("irreducible", "amount", "exponent"), [(2.0, 30.0, 0.3), (0.0, 12.0, 0.1), (1.5, 400.0, 0.55)]
)
def test_a_law_is_recovered_from_its_own_losses(irreducible, amount, exponent):
    law = fit(TOKENS, irreducible + amount * TOKENS**-exponent)
    assert law.slope() == pytest.approx(exponent * amount * 1e8 ** (-exponent - 1), rel=0.01)
    assert law.irreducible + law.reducible == pytest.approx(
        irreducible + amount * 1e8**-exponent, rel=1e-3
    )
    assert law.exponent == pytest.approx(exponent, abs=0.02)


def test_a_single_outlier_hardly_changes_a_law():
    losses = 2 + 30 * TOKENS**-0.3
    losses[[7, 20, 38]] *= 2
    assert fit(TOKENS, losses).slope() == pytest.approx(0.3 * 30 * 1e8**-1.3, rel=0.01)


def test_a_rising_loss_has_slope_zero():
    assert fit(TOKENS, np.linspace(2.0, 3.0, 40)).slope() == 0.0


def test_a_law_keeps_the_minimum_of_its_irreducible_loss():
    minimum = math.exp(0.5)
    for irreducible in (minimum, 2.0):
        law = fit(TOKENS, irreducible + 30 * TOKENS**-0.3, minimum)
        assert law.irreducible == pytest.approx(irreducible, rel=2e-3)
        assert law.slope() == pytest.approx(0.3 * 30 * 1e8**-1.3, rel=0.02)
    bounded = fit(TOKENS, 1.3 + 8 * TOKENS**-0.1, minimum)
    assert bounded.irreducible == minimum
    assert minimum + bounded.reducible == pytest.approx(1.3 + 8 * 1e8**-0.1, rel=0.01)
    assert bounded.slope() == pytest.approx(0.1 * 8 * 1e8**-1.1, rel=0.1)
    assert fit(TOKENS, 0.5 + TOKENS**-0.3, minimum).slope() == 0.0  # all losses are below it


def losses_at(tokens: float) -> list[float]:
    return [2 + 30 * tokens**-0.3, 2.2 + 8 * tokens**-0.15, 2.5]


def test_ado_trace():
    prior, mixer = [0.5, 0.3, 0.2], Ado(np.array([0.5, 0.3, 0.2]))
    state = mixer.start(3)
    credit, mean, sampling = prior, prior, prior
    for update in range(1, 31):
        tokens = 1e5 * 1.3**update
        state = mixer.propose(state, seeing(losses=losses_at(tokens), tokens=[tokens, 0, 0]))
        credit = [0.9 * c + 0.1 * s for c, s in zip(credit, sampling, strict=True)]
        if update < 5:  # too few losses for a law
            np.testing.assert_allclose(state.sampling, prior, rtol=1e-15)
            continue
        speeds = [
            0.3 * 30 * tokens**-0.3,
            0.15 * 8 * tokens**-0.15,
            0.0,
        ]  # a (L - eps); the tokens are the same for all
        wanted = [
            p * math.sqrt(c) * speed for p, c, speed in zip(prior, credit, speeds, strict=True)
        ]
        raised = [max(w / sum(wanted), 0.01) for w in wanted]
        rho = [r / sum(raised) for r in raised]
        sampling = [0.1 * r + 0.9 * m for r, m in zip(rho, mean, strict=True)]
        mean = [(update * m + r) / (update + 1) for r, m in zip(rho, mean, strict=True)]
        np.testing.assert_allclose(state.alpha, rho, rtol=2e-3)
        np.testing.assert_allclose(state.sampling, sampling, rtol=2e-3)


def ado_after_warmup(first_step: int, drop: float) -> MixerState:
    """Return the state after losses of one law, above which the first member starts by `drop`."""
    mixer, state = Ado(first_step=first_step), uniform_state(2)
    for step in range(10, 310, 10):
        warmup = drop * max(0.0, 1 - step / 100)
        losses = [2 + 30 * (1e3 * step) ** -0.3 + extra for extra in (warmup, 0.0)]
        state = mixer.propose(state, seeing(losses=losses, step=step))
        if step < first_step + 40:  # five losses are needed
            assert state.sampling.tolist() == [0.5, 0.5]
    return state


def test_ado_does_not_fit_losses_of_the_warmup():
    with_drop, without = ado_after_warmup(100, 3.0), ado_after_warmup(100, 0.0)
    assert with_drop.memory["tokens"][0] == 1e5
    np.testing.assert_array_equal(with_drop.sampling, without.sampling)
    np.testing.assert_allclose(with_drop.sampling, 0.5, rtol=1e-6)
    assert abs(ado_after_warmup(0, 3.0).alpha[0] - 0.5) > 0.01


def test_ado_keeps_a_minimum_preference_and_the_prior_if_no_loss_falls():
    np.testing.assert_allclose(
        preferred(np.array([1.0, 0.0]), np.array([0.5, 0.5])), [1 / 1.01, 0.01 / 1.01], rtol=1e-15
    )
    assert preferred(np.zeros(2), np.array([0.3, 0.7])).tolist() == [0.3, 0.7]
    many = preferred(
        np.eye(1, 200)[0], np.full(200, 1 / 200)
    )  # half of an even share is kept, not 2 in all
    assert many[0] == pytest.approx(1 / (1 + 199 * 0.0025))


def test_ado_keeps_a_bounded_history_with_its_newest_loss():
    mixer, state = Ado(), uniform_state(2)
    full = {
        "tokens": np.arange(1.0, MAXIMUM_LOSSES + 1),
        "losses": 2 + np.arange(1.0, MAXIMUM_LOSSES + 1)[:, None] ** -np.array([0.2, 0.3]),
    }
    state = MixerState(state.log_alpha, state.sampling, full)
    state = mixer.propose(state, seeing(losses=[2.3, 2.1], tokens=[300.0, 300.0]))
    assert state.memory["tokens"][[0, 1, -2, -1]].tolist() == [1.0, 3.0, 255.0, 600.0]
    assert state.memory["losses"].shape == (129, 2)
    assert state.memory["losses"][-1].tolist() == [2.3, 2.1]


def config(**mixture) -> Train:
    training = {"steps": 1000, "batch_sequences": 8, "sequence_tokens": 16}
    optimizer = {"learning_rate": 2e-3, "schedule": "constant", "warmup_steps": 10}
    settings = {
        "catalog": "c",
        "out": "o",
        "target": "t",
        "mixture": mixture,
        "training": training,
        "optimizer": optimizer,
    }
    return parse(Train, settings, "test")


def mixer_of(config: Train, names: str, sizes: np.ndarray | None = None) -> Mixer:
    return make_mixer(config, names, partial(learning_rate_at, config), sizes)


def test_the_config_selects_the_mixer_and_its_published_step():
    assert mixer_of(config(mixer="dga"), "ab") == Dga(
        1.5, 0.3, "target", pull=0.3, error_aware=True
    )
    assert mixer_of(
        config(
            mixer="dga",
            pull=0,
            scores="normalised",
            eta=0.2,
            ema=1,
            most_change=0.1,
            floor=0.05,
            error_aware=True,
        ),
        "ab",
    ) == Dga(0.2, 1.0, "normalised", 0.1, 0.05, True)
    assert mixer_of(config(mixer="doremi", reference="r", update_every_steps=100), "ab") == DoReMi(
        1.0, 1e-4, 100
    )
    assert mixer_of(config(mixer="odm", update_every_steps=100), "ab") == Odm("linear", 100)
    assert mixer_of(
        config(mixer="odm", odm_form="exponential", update_every_steps=100), "ab"
    ) == Odm("exponential", 100)
    ado = mixer_of(config(mixer="ado"), "ab", np.array([0.3, 0.7]))
    assert ado.start(2).sampling.tolist() == [0.3, 0.7]
    assert ado.first_step == 10
    doge = mixer_of(config(mixer="doge", update_every_steps=50), "ab")
    assert isinstance(doge, Doge)
    assert (doge.mu, doge.every_steps) == (0.05, 50)
    assert [doge.learning_rate(step) for step in (0, 500)] == pytest.approx([2e-4, 2e-3])
    assert mixer_of(config(mixer="doge", eta=100.0), "ab").mu == pytest.approx(0.01)
    for name in ("natural", "uniform", "temperature", "unimax", "importance"):
        assert isinstance(mixer_of(config(mixer=name), "a"), Static)
