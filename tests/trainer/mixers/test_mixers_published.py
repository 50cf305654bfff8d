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
    # The excess (log 2, 0 for a negative one, log 3) multiplies by (2, 1, 3). Then 1e-3 is spread
    # evenly. The next step starts from the result.
    mixer = DoReMi()
    first = mixer.propose(
        mixer.start(3),
        seeing(losses=[2 + math.log(2), 1.0, 3 + math.log(3)], reference=[2.0, 1.5, 3.0]),
    )
    smooth = [0.999 * share + 0.001 / 3 for share in (2 / 6, 1 / 6, 3 / 6)]
    np.testing.assert_allclose(first.sampling, smooth, rtol=1e-14)
    second = mixer.propose(first, seeing(losses=[1.0, math.log(5), 1.0], reference=[1.0, 0.0, 1.0]))
    total = smooth[0] + 5 * smooth[1] + smooth[2]
    again = [0.999 * share / total + 0.001 / 3 for share in (smooth[0], 5 * smooth[1], smooth[2])]
    np.testing.assert_allclose(second.sampling, again, rtol=1e-14)
    np.testing.assert_allclose(
        final_weights(second), [(a + b) / 2 for a, b in zip(smooth, again, strict=True)], rtol=1e-14
    )


def test_final_weights_are_the_average_or_the_last_sampling_weights():
    mixer, state = DoReMi(), uniform_state(2)
    seen = []
    for step in range(7):
        state = mixer.propose(state, seeing(losses=[1.0 + step % 3, 2.0], reference=[1.0, 1.0]))
        seen.append(state.sampling)
    np.testing.assert_allclose(final_weights(state), np.mean(seen, axis=0), rtol=1e-13)
    plain = Dga(eta=1.0, ema=0.1).propose(uniform_state(2), seeing([1.0, 0.0]))
    assert final_weights(plain) is plain.sampling


def test_odm_trace():
    mixer = Odm()
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
    first = Odm().propose(uniform_state(4), seeing(losses=[9.0, 1.0, 1.0, 1.0], step=5))
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


def losses_at(tokens: float) -> list[float]:
    return [2 + 30 * tokens**-0.3, 1 + 8 * tokens**-0.15, 2.5]


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
    assert mixer_of(config(mixer="dga"), "ab") == Dga(eta=1.5, ema=0.1)
    assert mixer_of(
        config(
            mixer="dga",
            scores="normalised",
            eta=0.2,
            ema=1,
            most_change=0.1,
            floor=0.05,
            error_aware=True,
        ),
        "ab",
    ) == Dga(0.2, 1.0, "normalised", 0.1, 0.05, True)
    assert mixer_of(config(mixer="doremi", reference="r"), "ab") == DoReMi(eta=1.0, smoothing=1e-3)
    assert mixer_of(config(mixer="odm"), "ab") == Odm()
    ado = mixer_of(config(mixer="ado"), "ab", np.array([0.3, 0.7]))
    assert ado.start(2).sampling.tolist() == [0.3, 0.7]
    doge = mixer_of(config(mixer="doge", update_every_steps=50), "ab")
    assert isinstance(doge, Doge)
    assert (doge.mu, doge.every_steps) == (0.05, 50)
    assert [doge.learning_rate(step) for step in (0, 500)] == pytest.approx([2e-4, 2e-3])
    assert mixer_of(config(mixer="doge", eta=100.0), "ab").mu == pytest.approx(0.01)
    for name in ("natural", "uniform", "temperature", "importance"):
        assert isinstance(mixer_of(config(mixer=name), "a"), Static)
