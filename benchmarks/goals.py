"""The goals of the benchmark of mixtures, answered from the results of its runs.

The goals were set before the runs. Losses are in bits per byte, differences are paired by seed, and
"beyond noise" means two standard errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flows.comparison import (
    FIXED_MIXERS,
    Difference,
    Result,
    by_setting,
    dominated_by,
    mean_and_error,
    paired,
)

METHOD = "dga"
AVERAGED, PERMUTED = "dga-averaged", "dga-permuted"
CONTROLS = ("dga-other-target", "dga-shuffled")  # they must lose
NEAR = 0.01  # bits per byte
TRANSFER = {"fixed": "half-and-half", "found": "dga", "replayed": "dga-replayed"}


@dataclass(frozen=True)
class Answer:
    """The answer to one goal."""

    goal: str
    met: bool | None
    """None if the runs do not decide it."""
    figures: str

    def row(self) -> str:
        """Return a row of a Markdown table."""
        answer = "open" if self.met is None else "yes" if self.met else "no"
        return f"| {self.goal} | **{answer}** | {self.figures} |"


def answers(results: Sequence[Result], transfer: Sequence[Result] = ()) -> list[Answer]:
    """Return the answers to goals 1 to 5.

    Args:
        results: the runs of the recipe `frontier`.
        transfer: the runs of the recipe `transfer`, in which a larger model replays a log.
    """
    groups = list(by_setting(results).values())
    most = max((group[0].epochs or 0.0) for group in groups)
    scarce = [group for group in groups if (group[0].epochs or 0.0) == most]
    return [
        _near_the_best(groups, scarce),
        _not_dominated(groups),
        _schedule_matters(scarce),
        _transfers(transfer),
        _controls_lose(groups),
    ]


def table(found: Sequence[Answer]) -> str:
    """Return the answers as a Markdown table."""
    head = "| goal | met | figures |\n|---|---|---|"
    return "\n".join([head, *(answer.row() for answer in found)])


def _near_the_best(groups: list[list[Result]], scarce: list[list[Result]]) -> Answer:
    differences = [_from_best(group) for group in groups]
    near = sum(d.mean <= NEAR for _, d in differences)
    below = sum(_beyond(_from_best(group)[1], -1) for group in scarce)
    shown = ", ".join(
        f"{group[0].target} x{group[0].epochs:g}: {_signed(d)} ({best})"
        for group, (best, d) in zip(groups, differences, strict=True)
    )
    return Answer(
        f"1. One run is within {NEAR} of the best fixed mixture in hindsight in 3 of 4 settings, "
        "and below it beyond noise in 3 of 8 settings with the most repetition",
        near >= 0.75 * len(groups) and below >= 0.375 * len(scarce),
        f"within in {near} of {len(groups)}, below in {below} of {len(scarce)}. {shown}",
    )


def _from_best(group: Sequence[Result]) -> tuple[str, Difference]:
    """Return the fixed mixture with the lowest mean test loss, and the method minus it."""
    fixed = dict.fromkeys(r.variant for r in group if r.mixer in FIXED_MIXERS)
    best = min(
        fixed, key=lambda name: mean_and_error(r.test for r in group if r.variant == name).mean
    )
    difference = paired(group, METHOD, best, "test")
    assert difference is not None
    return best, difference


def _not_dominated(groups: list[list[Result]]) -> Answer:
    found = [
        f"{group[0].target} x{group[0].epochs:g} by {', '.join(by)}"
        for group in groups
        if (by := dominated_by(group, METHOD))
    ]
    return Answer(
        "2. No fixed mixture is better on the target and on general text, both beyond noise",
        not found,
        f"dominated in {len(found)} of {len(groups)}. {'; '.join(found)}".strip(),
    )


def _schedule_matters(scarce: list[list[Result]]) -> Answer:
    differences = {g[0].target: paired(g, AVERAGED, METHOD, "test") for g in scarce}
    known = {name: d for name, d in differences.items() if d is not None}
    worse = sum(_beyond(d, 1) for d in known.values())
    return Answer(
        "3. The same weights without their schedule are worse beyond noise on 3 targets with the "
        "most repetition",
        worse >= 3 if known else None,
        f"worse on {worse} of {len(known)}. "
        + ", ".join(f"{name}: {_signed(d)}" for name, d in known.items()),
    )


def _transfers(transfer: Sequence[Result]) -> Answer:
    goal = (
        "4. A log found with a small model and replayed with a larger one keeps 70 % of the gain "
        "over half and half that a run of the larger model has"
    )
    gains, kept = [], []
    for group in by_setting(transfer).values():
        own = paired(group, TRANSFER["fixed"], TRANSFER["found"], "test")
        replayed = paired(group, TRANSFER["fixed"], TRANSFER["replayed"], "test")
        if own and replayed:
            gains.append(own.mean)
            kept.append(replayed.mean)
    if not gains:
        return Answer(goal, None, "not run")
    share = sum(kept) / sum(gains) if sum(gains) > 0 else float("nan")
    return Answer(
        goal,
        share >= 0.7,
        f"gain of the replay {sum(kept) / len(kept):.4f}, of an own run "
        f"{sum(gains) / len(gains):.4f}, over {len(gains)} settings: {share:.0%}",
    )


def _controls_lose(groups: list[list[Result]]) -> Answer:
    """Also count the settings in which the method's gain is gone at the best checkpoint."""
    parts, met = [], True
    for control in CONTROLS:
        known = [d for group in groups if (d := paired(group, control, METHOD, "test"))]
        if not known:
            return Answer("5. Controls are never as good", None, f"{control} was not run")
        lost = sum(d.mean > 0 for d in known)
        met &= lost == len(known)
        mean = mean_and_error(d.mean for d in known)
        parts.append(f"{control}: worse in {lost} of {len(known)}, by {_signed(mean)}")
    return Answer(
        "5. Aimed at another target, or with shuffled scores, it is never as good", met,
        ". ".join(parts),
    )  # fmt: skip


def _beyond(difference: Difference, sign: int) -> bool:
    """Return whether a difference has a sign beyond noise."""
    return sign * difference.mean > 2 * difference.error


def _signed(difference: Difference) -> str:
    return f"{difference.mean:+.4f} ± {difference.error:.4f}"
