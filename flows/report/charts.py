"""What the page draws, as plain values that become JSON; the page's scripts only turn it into pixels."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from data_catalog.mixture import effective_number
from flows.report.data import GENERAL, VALIDATION, Run
from flows.report.domains import Domains, domain_number, drawn

MOST_POINTS = 400  # of one curve
MOST_BANDS = 7  # of one stacked chart, besides the sum of the others
MOST_DOMAINS = 3_000  # in the page; a finer level keeps those with the largest shares
DIGITS = 6  # significant, of every number in the page


def payload(runs: Sequence[Run], domains: Domains | None) -> dict[str, Any]:
    """Everything the scripts need. Numbers are rounded to six significant digits; what is not finite is null."""
    return {
        "runs": [{"label": run.label, "mixer": run.mixer} for run in runs],
        "losses": [loss_panel(runs, VALIDATION, "Target: held-out text"), loss_panel(runs, GENERAL, "General: held-out corpus text")],
        "weights": [weights_chart(run, group, domains) for group in _same_basis(runs) for run in group],
        "domains": None if domains is None else domain_rows(runs, domains),
    }


def loss_panel(runs: Sequence[Run], held_out: str, title: str) -> dict[str, Any]:
    """One curve a run: [tokens, nats per token]; `top` is where the panel ends if the first losses are cut off."""
    curves = [run.losses(held_out) for run in runs]
    series = [{"run": i, "points": plain(_thin(np.array(points)))} for i, points in enumerate(curves) if points]
    return {"title": title, "top": plain(_top(curves)), "series": series}


def _top(curves: Sequence[Sequence[tuple[float, float]]]) -> float | None:
    """The highest loss after the first tenth of the tokens: the fall from random weights would flatten all that follows it."""
    last = max((points[-1][0] for points in curves if points), default=0.0)
    late = [loss for points in curves for tokens, loss in points if tokens >= last / 10]
    everything = [loss for points in curves for _, loss in points]
    if min(map(len, filter(None, curves)), default=0) < 5 or max(late) >= max(everything):
        return None
    return max(late) + 0.05 * (max(late) - min(late))


def _same_basis(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs that choose among several basis members, those with the same basis together: they share colours."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if len(run.basis) > 1 and run.weights is not None:
            groups.setdefault(run.basis, []).append(run)
    return list(groups.values())


def weights_chart(run: Run, group: Sequence[Run], domains: Domains | None) -> dict[str, Any]:
    """Sampling weights by stage: the group's largest members as bands, largest last weight first, and the sum of the others.

    Weights hold from their stage's first sequence to the next one's, so the chart has steps and no slopes.
    """
    weights = run.weights
    if weights is None:
        raise ValueError(f"{run.label} has no weight log")
    shown = _largest(group)
    rest = np.setdiff1d(np.arange(len(run.basis)), shown)
    stages = _spread(len(weights.sampling))
    starts, end, axis = _positions(run)

    def bands(table: Float[np.ndarray, "stages basis"]) -> list[Any]:
        columns = [table[stages, member] for member in shown]
        return [plain(column) for column in (*columns, *([table[stages][:, rest].sum(axis=1)] if len(rest) else []))]

    others = [f"{len(rest)} others"] if len(rest) > 1 else [basis_label(run, int(i), domains) for i in rest]
    return {
        "run": run.label,
        "axis": axis,
        "starts": plain(starts[stages]),
        "end": plain(end),
        "names": [*(basis_label(run, i, domains) for i in shown), *others],
        "others": len(rest) > 0,
        "sampling": bands(weights.sampling),
        "alpha": bands(weights.alpha),
        "effective": plain(np.array([effective_number(row) for row in weights.sampling[stages]])),
        "members": len(run.basis),
    }


def basis_label(run: Run, member: int, domains: Domains | None) -> str:
    """A basis member's name; in domain mode with the domain's first terms."""
    name = run.basis[member]
    if domains is None or (run.config.get("mixture") or {}).get("basis") != "domains" or run.about.get("level") != domains.level:
        return name
    number = domain_number(name, member)
    return domains.name(number) if number < domains.level else name


def _largest(group: Sequence[Run]) -> list[int]:
    """Members with the largest mean or last weight in any run of the group, ordered by the first run's last weight."""
    logs = [run.weights.sampling for run in group if run.weights is not None]
    size = np.max([np.maximum(log.mean(axis=0), log[-1]) for log in logs], axis=0)
    kept = np.argsort(-size, kind="stable")[:MOST_BANDS]
    return [int(i) for i in sorted(kept, key=lambda i: (-logs[0][-1][i], i))]


def _positions(run: Run) -> tuple[Float[np.ndarray, " stages"], float, str]:
    """Where each stage starts, where the last one ends so far, and the axis's title: tokens, or sequences where tokens are unknown."""
    weights = run.weights
    first = np.zeros(1) if weights is None else weights.first_sequence.astype(float)
    batch = (run.config.get("training") or {}).get("batch_sequences")
    known = sorted({(int(r["step"]), float(r["tokens"])) for kind in ("train", "eval") for r in run.of_kind(kind)})
    if not batch or not known:
        return first, float(first[-1] + max(np.diff(first, append=first[-1]).max(), 1)), "sequences"
    steps, tokens = (np.array(column, float) for column in zip((0, 0.0), *known, strict=True))
    return np.interp(first / batch, steps, tokens), float(tokens.max()), "training tokens"


def domain_rows(runs: Sequence[Run], domains: Domains) -> dict[str, Any]:
    """One row a domain: number, terms, documents, tokens, rank by tokens, corpus share, target share, [drawn share], [epochs].

    The lists follow `runs`, the indices of those runs that have written what they drew.
    """
    shares = {i: found for i, run in enumerate(runs) if (found := drawn(run, domains)) is not None}
    target, target_name = _target(runs, domains)
    corpus = domains.corpus_share
    rank = np.empty(domains.level, np.int64)
    rank[np.argsort(-corpus, kind="stable")] = np.arange(domains.level)
    size = np.max([corpus, *([] if target is None else [target]), *(share for share, _ in shares.values())], axis=0)
    kept = np.sort(np.argsort(-size, kind="stable")[:MOST_DOMAINS])
    kept = kept[(size[kept] > 0) | (domains.documents[kept] > 0)]
    rows = [
        [
            *(int(d), ", ".join(domains.terms[d]), int(domains.documents[d]), int(domains.tokens[d]), int(rank[d]) + 1, plain(corpus[d])),
            *(
                None if target is None else plain(target[d]),
                [plain(s[d]) for s, _ in shares.values()],
                [plain(e[d]) for _, e in shares.values()],
            ),
        ]
        for d in kept
    ]
    filled = int((domains.documents > 0).sum())
    return {"level": domains.level, "filled": filled, "target": target_name, "runs": list(shares), "rows": rows}


def _target(runs: Sequence[Run], domains: Domains) -> tuple[Float[np.ndarray, " domains"] | None, str | None]:
    """How the target's own documents fall into the domains, if all runs share one target."""
    names = {run.target for run in runs}
    found = domains.distribution(runs[0].target, "hard") if len(names) == 1 else None
    return found, None if found is None else runs[0].target


def _spread(n: int) -> list[int]:
    """At most MOST_POINTS indices over n, with the first and the last."""
    return np.unique(np.linspace(0, n - 1, min(n, MOST_POINTS)).round().astype(int)).tolist()


def _thin(points: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "fewer 2"]:
    return points[_spread(len(points))]


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: nested lists of numbers of six significant digits, null for what is not finite."""
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(item) for item in value]
    if value is None or not math.isfinite(value):
        return None
    number = float(f"{value:.{DIGITS}g}") if abs(value) < 1e15 else float(value)
    return int(number) if number.is_integer() else number
