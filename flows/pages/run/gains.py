"""Differences between the last losses of two runs, with standard errors."""

from collections.abc import Sequence
from dataclasses import dataclass

from flows.comparison import mean_and_error
from flows.pages.run.run_folder import TEST, VALIDATION, Measurement, RunFolder
from flows.pages.run.summary import seeds_of

BASELINE_MIXER = "natural"
CLEAR_ERRORS = 2  # a difference of more standard errors is clear


@dataclass(frozen=True)
class Gain:
    """Loss of `other` minus that of `run`, in nats per token. Positive if `run` is better."""

    run: RunFolder
    other: RunFolder
    split: str  # held-out set of the losses
    value: float
    relative: float  # to the loss of `other`
    error: float | None  # standard error, None if it is unknown
    seeds: int  # number of pairs of the same seed. 1: the error is that of independent losses

    @property
    def clear(self) -> bool:
        """Return whether the difference is larger than `CLEAR_ERRORS` standard errors."""
        return self.error is not None and abs(self.value) > CLEAR_ERRORS * self.error


def last_loss(run: RunFolder, held_out: str) -> Measurement | None:
    """Return the last measurement of a held-out set, or None."""
    points = run.losses(held_out)
    return points[-1] if points else None


def comparison_split(runs: Sequence[RunFolder]) -> str:
    """Return the test set if all runs were evaluated on it, else the validation set."""
    return TEST if all(last_loss(run, TEST) for run in runs) else VALIDATION


def gains(runs: Sequence[RunFolder]) -> list[Gain]:
    """Return the difference of each run of one target to its baseline, largest first.

    The baseline is a run on the natural mixture. Without one, it is the second best run, and only
    the best one is compared. There are no gains if fewer than two runs have a loss.
    """
    split = comparison_split(runs)
    measured = [run for run in runs if last_loss(run, split)]
    ranked = sorted(measured, key=lambda run: _loss(run, split))
    natural = [run for run in ranked if run.mixer == BASELINE_MIXER]
    if len(ranked) < 2:
        return []
    if not natural:
        return [gain(ranked[0], ranked[1], runs, split)]
    found = [
        gain(run, _same_seed(run, natural), runs, split) for run in ranked if run not in natural
    ]
    return sorted(found, key=lambda one: -one.value) or [gain(ranked[0], ranked[1], runs, split)]


def gain(run: RunFolder, other: RunFolder, runs: Sequence[RunFolder], split: str) -> Gain:
    """Return the difference of two runs.

    If both were repeated with at least two common seeds, it is the mean of the paired differences.
    Otherwise the errors of both losses are combined as if they were independent.
    """
    own, others = seeds_of(run, runs), seeds_of(other, runs)
    common = [
        seed
        for seed in own.keys() & others.keys()
        if own[seed] is not others[seed]
        and last_loss(own[seed], split)
        and last_loss(others[seed], split)
    ]
    if len(common) > 1:
        pairs = [(_loss(own[seed], split), _loss(others[seed], split)) for seed in sorted(common)]
        mean = mean_and_error(there - here for here, there in pairs)
        level = sum(there for _, there in pairs) / len(pairs)
        return Gain(run, other, split, mean.mean, mean.mean / (level or 1), mean.error, len(common))
    errors = [one.losses(split)[-1].error for one in (run, other)]
    known = [error for error in errors if error is not None]
    value = _loss(other, split) - _loss(run, split)
    error = sum(e**2 for e in known) ** 0.5 if len(known) == len(errors) else None
    return Gain(run, other, split, value, value / (_loss(other, split) or 1), error, 1)


def _same_seed(run: RunFolder, natural: Sequence[RunFolder]) -> RunFolder:
    seed = run.config.get("seed")
    return next((one for one in natural if one.config.get("seed") == seed), natural[0])


def _loss(run: RunFolder, split: str) -> float:
    return run.losses(split)[-1].loss
