"""Dynamic gradient alignment, compared with results by hand, and invariants of all mixers."""

import numpy as np
import pytest

from tests.helpers.tiny_observation import seeing
from trainer.mixers import MixerState, uniform_state
from trainer.mixers.ado import Ado
from trainer.mixers.dga import Dga
from trainer.mixers.doge import Doge
from trainer.mixers.doremi import DoReMi
from trainer.mixers.evidence import filled, shrunk
from trainer.mixers.fixed import Static
from trainer.mixers.odm import Odm
from trainer.mixers.replay import Replay

NAN = float("nan")


def test_golden_trace():
    # eta a = log 2 * (1, 0): alpha is multiplied by (2, 1) each time, so it runs 1/2, 2/3, 4/5
    mixer, scores = Dga(eta=np.log(2), ema=0.5), np.array([1.0, 0.0])
    first = mixer.propose(uniform_state(2), seeing(scores))
    np.testing.assert_allclose(first.alpha, [2 / 3, 1 / 3], rtol=1e-15)
    np.testing.assert_allclose(
        first.sampling, [7 / 12, 5 / 12], rtol=1e-15
    )  # half of 1/2 and half of 2/3
    second = mixer.propose(first, seeing(scores))
    np.testing.assert_allclose(
        second.alpha, [4 / 5, 1 / 5], rtol=1e-15
    )  # from alpha, not from the average: that would give 14/19
    np.testing.assert_allclose(
        second.sampling, [83 / 120, 37 / 120], rtol=1e-15
    )  # half of 7/12 and half of 4/5
    third = mixer.propose(second, seeing(-scores))
    np.testing.assert_allclose(third.alpha, [2 / 3, 1 / 3], rtol=1e-14)


def test_high_alignment_gains_weight():
    state = Dga(eta=0.3, ema=1.0).propose(uniform_state(3), seeing([1.0, 0.0, -1.0]))
    assert state.alpha[0] > 1 / 3 > state.alpha[2]


def test_ema_one_disables_averaging():
    state = uniform_state(4)
    for scores in ([0.3, -0.2, 0.1, 0.7], [-1.0, 0.4, 0.0, 0.2]):
        state = Dga(eta=1.5, ema=1.0).propose(state, seeing(scores))
        assert state.sampling.tolist() == state.alpha.tolist()


def test_ema_is_the_share_of_the_new_weights():
    state = Dga(eta=1.5, ema=0.1).propose(uniform_state(2), seeing([100.0, 0.0]))
    np.testing.assert_allclose(state.sampling, [0.55, 0.45], rtol=1e-12)


def test_a_weight_too_small_for_a_float_can_recover():
    mixer, state = Dga(eta=1.0, ema=1.0), uniform_state(2)
    for _ in range(2000):
        state = mixer.propose(state, seeing([1.0, 0.0]))
    assert state.alpha.tolist() == [1.0, 0.0]
    for _ in range(2000):
        state = mixer.propose(state, seeing([0.0, 1.0]))
    np.testing.assert_allclose(state.alpha, [0.5, 0.5], rtol=1e-9)


def test_normalised_scores_are_centred_and_divided_by_their_spread():
    # The scores 7, 1, 1 have mean 3 and standard deviation sqrt((16 + 4 + 4) / 3) = sqrt 8, so that
    # the first gains by exp(eta 6 / sqrt 8) over the others.
    for scale, shift in ((1.0, 0.0), (1e-6, 5e-6), (1e6, -1e3)):
        scores = scale * np.array([7.0, 1.0, 1.0]) + shift
        mixer = Dga(eta=np.log(2) * np.sqrt(8) / 6, ema=1.0, scores="normalised")
        np.testing.assert_allclose(
            mixer.gains(seeing(scores)), np.array([4.0, -2.0, -2.0]) / np.sqrt(8), rtol=1e-9
        )
        np.testing.assert_allclose(
            mixer.propose(uniform_state(3), seeing(scores)).alpha, [0.5, 0.25, 0.25], rtol=1e-9
        )


@pytest.mark.parametrize(
    "scores", [[0.7, 0.7, np.nextafter(0.7, 1)], [0.3], [NAN, 0.1, 0.1], [NAN, NAN]]
)
def test_normalised_scores_without_spread_change_nothing(scores):
    state = Dga(eta=1.0, ema=1.0, scores="normalised").propose(
        uniform_state(len(scores)), seeing(scores)
    )
    np.testing.assert_allclose(state.alpha, 1 / len(scores), rtol=1e-15)


def test_a_member_without_a_score_moves_like_the_mean_of_the_others():
    # gains (log 4, unknown, 0): unknown is given log 2, so alpha is multiplied by (4, 2, 1)
    state = Dga(eta=1.0, ema=1.0).propose(uniform_state(3), seeing([np.log(4), NAN, 0.0]))
    np.testing.assert_allclose(state.alpha, [4 / 7, 2 / 7, 1 / 7], rtol=1e-15)
    assert filled(np.array([1.0, NAN, 4.0])).tolist() == [1.0, 2.5, 4.0]


def test_a_change_is_reduced_to_exactly_its_maximum():
    old = MixerState(np.log([0.2, 0.3, 0.5]), np.array([0.2, 0.3, 0.5]))
    free = Dga(eta=1.0, ema=1.0).propose(old, seeing([2.0, 0.0, -1.0]))
    cut = Dga(eta=1.0, ema=1.0, maximum_change=0.05).propose(old, seeing([2.0, 0.0, -1.0]))
    assert (free.alpha * np.log(free.alpha / old.alpha)).sum() > 0.5
    assert (cut.alpha * np.log(cut.alpha / old.alpha)).sum() == pytest.approx(0.05, rel=1e-12)
    steps = np.log(
        cut.alpha / old.alpha
    )  # along the same direction: differences are in proportion to those of the scores, 2 to 1
    assert (steps[0] - steps[1]) / (steps[1] - steps[2]) == pytest.approx(2.0, rel=1e-9)
    small = Dga(eta=1.0, ema=1.0, maximum_change=10.0).propose(old, seeing([2.0, 0.0, -1.0]))
    assert small.alpha.tolist() == free.alpha.tolist()


def test_the_maximum_change_holds_for_any_scores():
    state = uniform_state(3)
    for size in (1e-300, 1.0, 1e4, 1e300):
        before, state = (
            state,
            Dga(eta=1.0, ema=0.3, maximum_change=0.01).propose(state, seeing([size, -size, 0.0])),
        )
        assert abs(state.alpha.sum() - 1) < 1e-12
        assert (state.alpha * np.log(state.alpha / before.alpha)).sum() <= 0.01 + 1e-12


def test_the_floor_is_spread_evenly_and_the_rest_follows_alpha():
    mixer, state = Dga(eta=1.0, ema=0.2, floor=0.3), uniform_state(3)
    for _ in range(200):
        state = mixer.propose(state, seeing([1.0, 0.0, 0.0]))
        assert state.sampling.min() >= 0.1 - 1e-15
    np.testing.assert_allclose(
        state.sampling, [0.8, 0.1, 0.1], rtol=1e-12
    )  # 0.7 to alpha's favourite and 0.1 to each
    assert state.alpha[0] > 1 - 1e-12  # the floor is no part of the recursion


def test_scores_are_shrunk_by_their_noise():
    # variance of (0, 2, 4) is 4, mean squared error 1: 3 is signal; so each is kept to 3/4 around 2
    np.testing.assert_allclose(
        shrunk(np.array([0.0, 2.0, 4.0]), np.ones(3)), [0.5, 2.0, 3.5], rtol=1e-15
    )
    # errors 0, 1, sqrt 2 of the same mean square: 3/3, 3/4, 3/5
    errors = np.sqrt([0.0, 1.0, 2.0])
    np.testing.assert_allclose(
        shrunk(np.array([0.0, 2.0, 4.0]), errors), [0.0, 2.0, 2 + 2 * 3 / 5], rtol=1e-15
    )


def test_scores_that_are_only_noise_become_their_mean():
    np.testing.assert_allclose(
        shrunk(np.array([0.0, 2.0, 4.0]), np.full(3, 5.0)), [2.0, 2.0, 2.0], rtol=1e-15
    )
    state = Dga(eta=1.0, ema=1.0, scores="normalised", error_aware=True).propose(
        uniform_state(3), seeing([0, 2, 4], [5, 5, 5])
    )
    np.testing.assert_allclose(state.alpha, 1 / 3, rtol=1e-12)


def test_shrinking_is_not_undone_by_dividing_by_the_spread():
    known, shy = (
        Dga(eta=1.0, ema=1.0, scores="normalised", error_aware=aware)
        .propose(uniform_state(3), seeing([0, 2, 4], [1, 1, 1]))
        .alpha
        for aware in (False, True)
    )
    assert np.log(shy[2] / shy[0]) == pytest.approx(0.75 * np.log(known[2] / known[0]), rel=1e-12)


def test_scores_without_errors_are_not_shrunk():
    scores = np.array([0.0, 2.0, 4.0])
    assert shrunk(scores, np.full(3, NAN)).tolist() == scores.tolist()
    assert shrunk(scores, np.array([1.0, NAN, NAN])).tolist() == scores.tolist()
    some = shrunk(
        np.array([0.0, 4.0, 9.0, NAN]), np.array([1.0, 1.0, NAN, np.inf])
    )  # variance 8, signal 7: 7/8 around 2
    np.testing.assert_allclose(some, [0.25, 3.75, 9.0, NAN], rtol=1e-15)


def test_static_weights_do_not_change():
    state = MixerState(np.log([0.25, 0.75]), np.array([0.25, 0.75]))
    assert Static().propose(state, seeing([5.0, -5.0])) is state
    assert not Static().needs


FOUR = np.array([0.1, 0.2, 0.3, 0.4])
MIXERS = {
    "static": lambda order: Static(),
    "dga": lambda order: Dga(eta=1.5, ema=0.1),
    "dga, all options": lambda order: Dga(
        1.5, 0.3, scores="normalised", maximum_change=0.02, floor=0.1, error_aware=True
    ),
    "doge": lambda order: Doge(lambda step: 1e-3, every_steps=10),
    "doremi": lambda order: DoReMi(every_steps=3),
    "odm": lambda order: Odm(),
    "odm, exponential": lambda order: Odm("exponential"),
    "ado": lambda order: Ado(FOUR[order]),
    "replay": lambda order: Replay(np.array([0, 300]), np.stack([FOUR, FOUR[::-1]])[:, order], 1),
}


def run_of(make, order):
    """Return the states of eight updates, with the members in the given order."""
    mixer, draws = make(order), np.random.default_rng(7)
    states = [mixer.start(4)]
    for step in range(100, 900, 100):
        scores, losses = (
            draws.normal(size=4),
            2 + 3 * step ** -np.array([0.1, 0.2, 0.3, 0.4]) + 0.01 * draws.normal(size=4),
        )
        seen = seeing(scores[order], np.full(4, 0.3), losses[order], np.abs(scores)[order], step)
        states.append(mixer.propose(states[-1], seen))
    return states


@pytest.mark.parametrize("name", MIXERS)
def test_permuting_the_members_permutes_the_weights(name):
    order = np.array([2, 0, 3, 1])
    plain, permuted = run_of(MIXERS[name], np.arange(4)), run_of(MIXERS[name], order)
    for here, there in zip(plain, permuted, strict=True):
        np.testing.assert_allclose(there.sampling, here.sampling[order], rtol=1e-10)
        np.testing.assert_allclose(there.alpha, here.alpha[order], rtol=1e-10)


@pytest.mark.parametrize("name", MIXERS)
def test_weights_stay_on_the_simplex_and_depend_only_on_the_saved_state(name):
    states = run_of(MIXERS[name], np.arange(4))
    for state in states:
        for weights in (state.alpha, state.sampling):
            assert abs(weights.sum() - 1) < 1e-12
            assert (weights >= 0).all()
        assert all(
            array.dtype == np.float64
            for array in (state.log_alpha, state.sampling, *state.memory.values())
        )
    last = states[-1]
    stored = MixerState(
        *(np.array(kept.tolist()) for kept in (last.log_alpha, last.sampling)),
        {k: np.array(v.tolist()) for k, v in last.memory.items()},
    )
    seen = seeing(
        [0.1, 0.2, -0.3, 0.0], losses=[2.0, 2.1, 2.2, 2.3], excess=[0.0, 0.1, 0.2, 0.3], step=900
    )
    mixer = MIXERS[name](np.arange(4))
    assert (
        mixer.propose(stored, seen).sampling.tolist() == mixer.propose(last, seen).sampling.tolist()
    )


@pytest.mark.parametrize("name", ["dga", "doge", "doremi", "odm", "odm, exponential", "ado"])
def test_a_learning_mixer_accepts_updates_with_unmeasured_members(name):
    mixer = MIXERS[name](np.arange(4))
    state = mixer.start(4)
    for step in range(100, 900, 100):
        one = [NAN, 0.1, 0.2, 0.3]
        state = mixer.propose(state, seeing(one, losses=one, excess=one, step=step))
    state = mixer.propose(state, seeing([NAN] * 4, losses=[NAN] * 4, excess=[NAN] * 4, step=900))
    assert np.isfinite(state.sampling).all()
    assert abs(state.sampling.sum() - 1) < 1e-12
