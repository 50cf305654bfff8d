"""Compare the rate at which DGA converges on a quadratic problem with the predicted rate.

Domain i has the loss |theta - c_i|^2 / 2, and the target |theta - t|^2 / 2, where t is the mean of
the c_i at the weights w. The model takes `lr` steps of gradient descent on the sampled mixture, and
every T steps DGA gets the exact products of the gradients. The paper proves that this converges.

With w as the prior, the whole process is linear near the optimum. Here alpha and sampling stand for
their distances from w, and theta for that from t:

    theta'    = (1 - lr)^T theta + (1 - (1 - lr)^T) C' sampling
    alpha'    = (1 - pull) (alpha - eta (diag(w) - w w') C theta')
    sampling' = (1 - ema) sampling + ema alpha'

The predicted rate is the logarithm of the largest absolute eigenvalue of this map, per update,
leaving out the directions of alpha that do not move theta. A positive rate is an unstable setting.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from jaxtyping import Float

from benchmarks.hardware import headline, today
from trainer.mixers import Observation
from trainer.mixers.dga import Dga

CENTRES = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]])  # c_i
BEST = np.array([0.5, 0.3, 0.2])  # w
LEARNING_RATE = 0.01
START = np.array([0.0005, -0.0004])  # theta - t
UPDATES = 4_000
FLOOR = 1e-13  # distances below are rounding errors


@dataclass(frozen=True)
class Setting:
    """Settings of DGA."""

    eta: float
    ema: float
    pull: float
    every_steps: int

    @property
    def kept(self) -> float:
        """Share of the distance from the mixture's optimum that is left after an interval."""
        return float((1.0 - LEARNING_RATE) ** self.every_steps)


def predicted_rate(setting: Setting) -> float:
    """Return the predicted change of log |theta - t| per update."""
    eta, ema, kept = setting.eta, setting.ema, setting.kept
    moves = eta * (np.diag(BEST) - np.outer(BEST, BEST)) @ CENTRES  # (members, parameters)
    # Only C' alpha matters to theta. The state is (theta - t, C' (alpha - w), C' (sampling - w)).
    n, drift = CENTRES.shape[1], CENTRES.T @ moves
    eye, zero = np.eye(n), np.zeros((n, n))
    theta = np.hstack([kept * eye, zero, (1.0 - kept) * eye])
    alpha = (1.0 - setting.pull) * (np.hstack([zero, eye, zero]) - drift @ theta)
    sampling = np.hstack([zero, zero, (1.0 - ema) * eye]) + ema * alpha
    return float(np.log(np.abs(np.linalg.eigvals(np.vstack([theta, alpha, sampling]))).max()))


def measured_rate(setting: Setting) -> float:
    """Return the change of log |theta - t| per update of a run near the optimum.

    The rate is a least squares fit to the second half of the updates before rounding errors.
    """
    mixer = Dga(eta=setting.eta, ema=setting.ema, scores="raw", prior=BEST, pull=setting.pull)
    state, theta, best = mixer.start(len(BEST)), BEST @ CENTRES + START, BEST @ CENTRES
    distances: list[float] = []
    unknown = np.full(len(BEST), np.nan)
    for update in range(UPDATES):
        for _ in range(setting.every_steps):
            theta = theta - LEARNING_RATE * (theta - state.sampling @ CENTRES)
        scores = (theta - CENTRES) @ (theta - best)
        seen = Observation(update, UPDATES, unknown, scores, unknown, unknown, unknown)
        state = mixer.propose(state, seen)
        distances.append(float(np.linalg.norm(theta - best)))
        if not FLOOR < distances[-1] < np.linalg.norm(START) * 100:
            break
    logs: Float[np.ndarray, " updates"] = np.log(distances[:-1])[len(distances) // 2 :]
    return float(np.polyfit(np.arange(len(logs)), logs, 1)[0])


def table(settings: Sequence[Setting]) -> str:
    """Return a Markdown table of predicted and measured rates."""
    head = (
        "| eta | ema | pull | steps per update | predicted rate per update | measured | per step |"
    )
    lines = [head, "|---|---|---|---|---|---|---|"]
    for each in settings:
        predicted, measured = predicted_rate(each), measured_rate(each)
        lines.append(
            f"| {each.eta:g} | {each.ema:g} | {each.pull:g} | {each.every_steps} "
            f"| {predicted:+.5f} | {measured:+.5f} | {measured / each.every_steps:+.6f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    out = parser.parse_args().out / f"{today()}-quadratic.md"
    grid = product((0.1, 0.5, 2.0), (1.0, 0.3, 0.1), (0.0, 0.3), (30, 100))
    settings = [Setting(*each) for each in grid]
    text = (
        f"# Convergence on a quadratic problem: predicted and measured rate\n\n{headline()}\n\n"
        f"Three domains, two parameters, learning rate {LEARNING_RATE:g}, exact gradients, prior "
        "at the optimum. A rate is the change of the logarithm of the distance from the optimum. "
        f"A positive rate is an unstable setting.\n\n{table(settings)}\n"
    )
    out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
