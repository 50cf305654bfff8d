"""Statistics of an experiment, computed from the results of its runs.

Losses are in bits per byte. Runs are compared in pairs of the same target, repetition and seed,
which share their data and their initial weights.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from scipy import stats

# Mixers whose weights do not change. Their runs form the frontier.
FIXED_MIXERS = ("natural", "uniform", "temperature", "unimax", "static", "importance")
Role = Literal["learned", "control", "fixed"]


@dataclass(frozen=True)
class Result:
    """The result of one run."""

    variant: str
    mixer: str
    target: str
    epochs: float | None
    """Repetition that was asked for. None: all data."""
    epochs_alone: float
    """Epochs of the target's domains in a run on the target's distribution alone."""
    seed: int
    steps: int
    tokens: int
    """Tokens trained on."""
    parameters: int
    test: float
    """Bits per byte on the target's test split."""
    validation: float
    """Bits per byte on the target's validation split."""
    general: float
    """Bits per byte on held-out documents of the corpus."""
    repeats: float
    """Sequences drawn per distinct sequence drawn."""
    seconds: float
    scoring_seconds: float
    best_validation: float = float("nan")
    """Lowest bits per byte on the validation split at any evaluation of the run."""
    choices: float | None = None
    """Loss of choosing the right answer, in nats per question of the validation split, if
    measured."""
    accuracy: float | None = None
    """Share of these questions whose right answer is the likeliest."""
    control: bool = False
    """Its mixer learns from shuffled scores, or for another target."""

    @property
    def role(self) -> Role:
        """The part that the variant plays in a comparison. Replayed weights are a control."""
        if self.mixer in FIXED_MIXERS:
            return "fixed"
        return "control" if self.control or self.mixer == "replay" else "learned"

    @property
    def setting(self) -> tuple[str, float | None]:
        """Target and repetition."""
        return self.target, self.epochs

    def row(self) -> dict[str, object]:
        """Return the result as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences."""

    mean: float
    error: float
    """Standard error of the mean. NaN for a single pair."""
    pairs: int

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the paired t-test. NaN for a single pair."""
        if not self.error > 0:
            return float("nan")
        return float(2 * stats.t.sf(abs(self.mean) / self.error, self.pairs - 1))


def mean_and_error(values: Iterable[float]) -> Difference:
    """Return the mean of some values and its standard error."""
    array = np.array(list(values), dtype=np.float64)
    error = array.std(ddof=1) / np.sqrt(len(array)) if len(array) > 1 else float("nan")
    return Difference(float(array.mean()), float(error), len(array))


def by_setting(results: Iterable[Result]) -> dict[tuple[str, float | None], list[Result]]:
    """Return the results by target and repetition, in the order of their first occurrence."""
    groups = defaultdict(list)
    for result in results:
        groups[result.setting].append(result)
    return dict(groups)


def frontier(results: Iterable[Result]) -> tuple[np.ndarray, np.ndarray]:
    """Return general and test loss of the fixed mixtures that no other fixed mixture dominates.

    They are ordered by increasing general loss, so that their test loss decreases.
    """
    kept = undominated((r.general, r.test) for r in results if r.mixer in FIXED_MIXERS)
    array = np.array(kept, dtype=np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def undominated(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points of which no other is lower in both coordinates, by the first one."""
    kept: list[tuple[float, float]] = []
    for point in sorted(points):
        if not kept or point[1] < kept[-1][1]:
            kept.append(point)
    return kept


def frontier_gap(result: Result, others: Iterable[Result]) -> float:
    """Return the test loss of a run minus that of the fixed mixtures at the same general loss.

    Between two mixtures of the frontier the curve is a straight line, which favours neither: by
    convexity of the trade-off the true curve is below it. Beyond its ends the curve is level.
    A negative gap means that no fixed mixture of the same seed reaches this point.

    Args:
        result: the run.
        others: the runs of the same target, repetition and seed.
    """
    general, test = frontier([other for other in others if other != result])
    if not len(general):
        return float("nan")
    return result.test - float(np.interp(result.general, general, test))


def dominated_by(results: Sequence[Result], variant: str) -> list[str]:
    """Return the fixed variants that are better than `variant` on both losses beyond noise.

    Both paired mean differences are at least two standard errors, for one target and repetition.
    """
    own = {r.seed: r for r in results if r.variant == variant}
    found = []
    for other in dict.fromkeys(r.variant for r in results if r.mixer in FIXED_MIXERS):
        pairs = [(own[r.seed], r) for r in results if r.variant == other and r.seed in own]
        if other == variant or len(pairs) < 2:
            continue
        test = mean_and_error(a.test - b.test for a, b in pairs)
        general = mean_and_error(a.general - b.general for a, b in pairs)
        if all(loss.mean > 2 * loss.error for loss in (test, general)):
            found.append(other)
    return found


def best_fixed(results: Sequence[Result]) -> str | None:
    """Return the fixed variant with the lowest mean validation loss."""
    fixed = defaultdict(list)
    for result in results:
        if result.mixer in FIXED_MIXERS:
            fixed[result.variant].append(result.validation)
    return min(fixed, key=lambda name: float(np.mean(fixed[name]))) if fixed else None


def paired(results: Sequence[Result], variant: str, other: str, loss: str) -> Difference | None:
    """Return the mean difference of a loss between two variants, in pairs of the same seed."""
    values = {
        name: {r.seed: getattr(r, loss) for r in results if r.variant == name}
        for name in (variant, other)
    }
    seeds = values[variant].keys() & values[other].keys()
    if not seeds:
        return None
    return mean_and_error(values[variant][seed] - values[other][seed] for seed in sorted(seeds))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979). NaN stays NaN and is not counted."""
    known = [i for i, p in enumerate(p_values) if not np.isnan(p)]
    adjusted, running = [float("nan")] * len(p_values), 0.0
    for rank, i in enumerate(sorted(known, key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(known) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted
