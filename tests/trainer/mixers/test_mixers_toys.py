"""Dynamic gradient alignment on problems with known solutions."""

from dataclasses import dataclass

import numpy as np
import pytest

from tests.helpers.tiny_observation import seeing
from trainer.mixers import Mixer, MixerState
from trainer.mixers.dga import Dga
from trainer.mixers.fixed import Static

SEEDS = range(5)
NEAR = 0  # the small domain of documents like the target's


@pytest.mark.parametrize("ema", [1.0, 0.1])
def test_a_quadratic_problem_is_solved(ema):
    # The losses are |theta - c_i|^2 / 2, and the target's is |theta - t|^2 / 2. The centre of the
    # optimal mixture, (0.5, 0.3, 0.2), is t.
    centres, best = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]]), np.array([0.5, 0.3, 0.2])
    mixer, theta = Dga(eta=0.05, ema=ema), np.array([5.0, -4.0])
    state = mixer.start(3)
    for _ in range(3000):
        for _ in range(10):
            theta = theta - 0.1 * (theta - state.sampling @ centres)
        state = mixer.propose(state, seeing((theta - centres) @ (theta - best @ centres)))
    np.testing.assert_allclose(state.alpha, best, atol=1e-3)
    np.testing.assert_allclose(theta, [0.6, 0.6], atol=1e-3)


def test_the_nearest_mixture_is_found_if_none_is_perfect():
    # The target's centre is outside the triangle. The nearest point of the triangle is (1, 0),
    # halfway between the first two centres.
    centres, target = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]]), np.array([1.0, -2.0])
    mixer, theta = Dga(eta=0.05, ema=0.1), np.array([5.0, 4.0])
    state = mixer.start(3)
    for _ in range(3000):
        for _ in range(10):
            theta = theta - 0.1 * (theta - state.sampling @ centres)
        state = mixer.propose(state, seeing((theta - centres) @ (theta - target)))
    np.testing.assert_allclose(state.alpha, [0.5, 0.5, 0.0], atol=1e-3)


@dataclass(frozen=True)
class Course:
    held_out: np.ndarray  # target loss above the noise, at every update
    near: np.ndarray  # share of the near domain in what was sampled since

    def end(self) -> float:
        return float(self.held_out[-20:].mean())


def scarce(seed: int, mixer: Mixer, start: list[float], *, memorised_probes: bool = True) -> Course:
    """Train a linear regression on three domains.

    The first is the target's domain, but has only 40 samples of 40 features. The second is similar
    and large. The third has the opposite sign.

    Args:
        memorised_probes: whether alignment is measured on the training samples, as in the trainer,
            or on fresh ones.
    """
    draws, features = np.random.default_rng(seed), 40

    def direction() -> np.ndarray:
        vector = draws.normal(size=features)
        return vector / np.linalg.norm(vector)

    truth = direction()
    truths = [truth, truth + 0.5 * direction(), direction() - truth]

    def sample(i: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        inputs = draws.normal(size=(count, features))
        return inputs, inputs @ truths[i] + draws.normal(size=count)

    domains = [sample(i, count) for i, count in enumerate((40, 2000, 2000))]
    align = sample(NEAR, 400)
    theta, state = (
        np.zeros(features),
        MixerState(np.log(np.maximum(start, 1e-300)), np.array(start)),
    )

    def gradient(samples: tuple[np.ndarray, np.ndarray], count: int) -> np.ndarray:
        chosen = draws.integers(len(samples[1]), size=count)
        inputs, outputs = samples[0][chosen], samples[1][chosen]
        return inputs.T @ (inputs @ theta - outputs) / count

    held_out, near = [], []
    for step in range(20, 3001, 20):
        for _ in range(20):
            counts = draws.multinomial(16, state.sampling / state.sampling.sum())
            theta = theta - 0.02 * sum(
                gradient(domains[i], n) * n / 16 for i, n in enumerate(counts) if n
            )
        held_out.append(0.5 * ((theta - truth) ** 2).sum())
        near.append(state.sampling[NEAR])
        if mixer.needs:
            toward = gradient(align, 64)
            probes = domains if memorised_probes else [sample(i, 32) for i in range(3)]
            state = mixer.propose(
                state, seeing([gradient(probe, 32) @ toward for probe in probes], step=step)
            )
    return Course(np.array(held_out), np.array(near))


def importance(seed: int) -> Course:
    return scarce(seed, Static(), [1.0, 0.0, 0.0])  # the target's histogram


def learned(
    seed: int, *, eta: float = 1.0, ema: float = 0.1, memorised_probes: bool = True
) -> Course:
    return scarce(
        seed, Dga(eta=eta, ema=ema), [1 / 3, 1 / 3, 1 / 3], memorised_probes=memorised_probes
    )


def clearly_above(values: list[float], bound: float) -> bool:
    """Return whether the mean is above `bound` by three standard errors."""
    return float(np.mean(values) - 3 * np.std(values, ddof=1) / np.sqrt(len(values))) > bound


@pytest.fixture(scope="module")
def averaged() -> list[Course]:
    return [learned(seed) for seed in SEEDS]


def test_importance_sampling_overfits_a_scarce_domain_and_alignment_does_not(averaged):
    fixed = [importance(seed) for seed in SEEDS]
    assert clearly_above(
        [np.log(course.end() / course.held_out.min()) for course in fixed], np.log(2)
    )  # It was half as high before.
    assert clearly_above(
        [np.log(there.end() / here.end()) for there, here in zip(fixed, averaged, strict=True)],
        np.log(3),
    )
    assert max(course.end() for course in averaged) < 0.2


def test_weight_moves_away_from_a_memorised_domain(averaged):
    assert clearly_above([course.near.max() for course in averaged], 1 / 3)  # high at first
    assert clearly_above([course.near.max() - course.near[-20:].mean() for course in averaged], 0.1)


def test_fresh_probes_do_not_detect_a_memorised_domain(averaged):
    blind = [learned(seed, memorised_probes=False) for seed in SEEDS]
    kept = [
        there.near[-20:].mean() - here.near[-20:].mean()
        for there, here in zip(blind, averaged, strict=True)
    ]
    assert clearly_above(kept, 0.1)


def test_without_the_moving_average_weights_jump_and_the_loss_spikes():
    # With this step size nearly all weight is on one domain, which changes all the time. With eta 1
    # the weights jump too, but the loss does not spike.
    smooth, plain = ([learned(seed, eta=10.0, ema=ema) for seed in SEEDS] for ema in (0.1, 1.0))
    pairs = list(zip(plain, smooth, strict=True))
    assert clearly_above(
        [
            np.abs(np.diff(there.near)).mean() / np.abs(np.diff(here.near)).mean()
            for there, here in pairs
        ],
        4.0,
    )
    assert clearly_above(
        [there.near[-75:].std() / here.near[-75:].std() for there, here in pairs], 1.25
    )
    assert clearly_above(
        [np.log(there.held_out[-75:].max() / here.held_out[-75:].max()) for there, here in pairs],
        np.log(1.2),
    )
