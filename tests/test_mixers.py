"""The update rule, against numbers worked out by hand."""

import numpy as np

from trainer.mixers import MixerState, uniform_state
from trainer.mixers.dga import Dga
from trainer.mixers.static import Static


def test_golden_trace() -> None:
    # eta a = log 2 * (1, 0): alpha is multiplied by (2, 1) each time, so it runs 1/2, 2/3, 4/5
    mixer, scores = Dga(eta=np.log(2), ema=0.5), np.array([1.0, 0.0])
    first = mixer.propose(uniform_state(2), scores)
    np.testing.assert_allclose(first.alpha, [2 / 3, 1 / 3], rtol=1e-15)
    np.testing.assert_allclose(first.sampling, [7 / 12, 5 / 12], rtol=1e-15)  # half of 1/2 and half of 2/3
    second = mixer.propose(first, scores)
    np.testing.assert_allclose(second.alpha, [4 / 5, 1 / 5], rtol=1e-15)  # from alpha, not from the average: that would give 14/19
    np.testing.assert_allclose(second.sampling, [83 / 120, 37 / 120], rtol=1e-15)  # half of 7/12 and half of 4/5
    third = mixer.propose(second, -scores)
    np.testing.assert_allclose(third.alpha, [2 / 3, 1 / 3], rtol=1e-14)


def test_high_alignment_gains_weight() -> None:
    state = Dga(eta=0.3, ema=1.0).propose(uniform_state(3), np.array([1.0, 0.0, -1.0]))
    assert state.alpha[0] > 1 / 3 > state.alpha[2]


def test_ema_one_is_no_average() -> None:
    state = uniform_state(4)
    for scores in ([0.3, -0.2, 0.1, 0.7], [-1.0, 0.4, 0.0, 0.2]):
        state = Dga(eta=1.5, ema=1.0).propose(state, np.array(scores))
        assert state.sampling.tolist() == state.alpha.tolist()


def test_ema_is_the_share_of_the_new_weights() -> None:
    state = Dga(eta=1.5, ema=0.1).propose(uniform_state(2), np.array([100.0, 0.0]))
    np.testing.assert_allclose(state.sampling, [0.55, 0.45], rtol=1e-12)


def test_a_weight_too_small_for_a_float_can_come_back() -> None:
    mixer, state = Dga(eta=1.0, ema=1.0), uniform_state(2)
    for _ in range(2000):
        state = mixer.propose(state, np.array([1.0, 0.0]))
    assert state.alpha.tolist() == [1.0, 0.0]
    for _ in range(2000):
        state = mixer.propose(state, np.array([0.0, 1.0]))
    np.testing.assert_allclose(state.alpha, [0.5, 0.5], rtol=1e-9)


def test_permuting_the_members_permutes_the_weights() -> None:
    scores, order = np.array([0.3, -0.2, 0.1, 0.7]), np.array([2, 0, 3, 1])
    mixer = Dga(eta=1.5, ema=0.1)
    there = mixer.propose(uniform_state(4), scores)
    np.testing.assert_allclose(mixer.propose(uniform_state(4), scores[order]).sampling, there.sampling[order], rtol=1e-15)


def test_weights_stay_on_the_simplex_for_any_scores() -> None:
    state = uniform_state(3)
    for size in (1e-300, 1.0, 1e4, 1e300):
        state = Dga(eta=1.0, ema=0.3).propose(state, np.array([size, -size, 0.0]))
        assert abs(state.alpha.sum() - 1) < 1e-12
        assert abs(state.sampling.sum() - 1) < 1e-12


def test_static_weights_stay() -> None:
    state = MixerState(np.log([0.25, 0.75]), np.array([0.25, 0.75]))
    assert Static().propose(state, np.array([5.0, -5.0])) is state
    assert not Static().learns
