"""Data for the scripts of the page, as plain values that become JSON."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from flows.pages.run.domains import Domains
from flows.pages.run.losses import final_panels, final_sets, loss_panels
from flows.pages.run.mixture import drawn_domains
from flows.pages.run.run_folder import RunFolder, number
from flows.pages.run.speed import speed_panels
from flows.pages.run.weights import weights_charts
from flows.pages.shared.numbers import json_numbers, thin_points

MAXIMUM_TABLE_DOMAINS = 3_000  # those with the largest shares are kept


def run_page_data(runs: Sequence[RunFolder], domains: Domains | None) -> dict[str, Any]:
    """Return all data of the page. Numbers have six significant digits, and NaN becomes null."""
    return {
        "runs": [
            {"label": run.label, "mixer": run.mixer, "progress": _progress(run)} for run in runs
        ],
        "losses": loss_panels(runs),
        "finals": final_panels(final_sets(runs, domains)),
        "weights": weights_charts(runs, domains),
        "unwritten": any(run.weights is None for run in runs),
        "speed": speed_panels(runs),
        "domains": None if domains is None else domain_rows(runs, domains),
    }


def _progress(run: RunFolder) -> list[Any]:
    """Return points [tokens, steps, seconds] in the order of training, seconds None if unknown."""
    steps, tokens = run.progress()
    timed = [
        (float(record["step"]), spent)
        for record in run.of_kind("train")
        if (spent := number(record, "seconds")) is not None
    ]
    timed.sort()
    known = np.array([(0.0, 0.0), *timed])
    seconds = np.interp(steps, *known.T) if timed else np.full(len(steps), np.nan)
    return json_numbers(thin_points(np.column_stack([tokens, steps, seconds])))


def domain_rows(runs: Sequence[RunFolder], domains: Domains) -> dict[str, Any]:
    """Return one row per domain.

    A row has the number, terms, documents, tokens, rank by tokens, corpus share and target share,
    and three lists: sampled shares, epochs, and tokens never sampled. The lists are in the order of
    `runs`, the indices of the runs with known numbers. `expected` has the indices of the runs whose
    numbers are estimated from weights.
    """
    shares = {
        i: found for i, run in enumerate(runs) if (found := drawn_domains(run, domains)) is not None
    }
    target, target_name = _target(runs, domains)
    corpus, tokens = domains.corpus_share, domains.tokens
    rank = np.empty(domains.level, np.int64)
    rank[np.argsort(-corpus, kind="stable")] = np.arange(domains.level)
    size = np.max(
        [
            corpus,
            *([] if target is None else [target]),
            *(found.share for found in shares.values()),
        ],
        axis=0,
    )
    kept = np.sort(np.argsort(-size, kind="stable")[:MAXIMUM_TABLE_DOMAINS])
    kept = kept[(size[kept] > 0) | (domains.documents[kept] > 0)]
    rows = [
        [
            *(
                int(d),
                ", ".join(domains.terms[d]),
                int(domains.documents[d]),
                int(tokens[d]),
                int(rank[d]) + 1,
                json_numbers(corpus[d]),
            ),
            None if target is None else json_numbers(target[d]),
            *(
                [json_numbers(getattr(found, key)[d]) for found in shares.values()]
                for key in ("share", "epochs", "unseen")
            ),
        ]
        for d in kept
    ]
    return {
        "level": domains.level,
        "filled": int((domains.documents > 0).sum()),
        "target": target_name,
        "runs": list(shares),
        "expected": [i for i, found in shares.items() if found.expected],
        "rows": rows,
    }


def _target(
    runs: Sequence[RunFolder], domains: Domains
) -> tuple[Float[np.ndarray, " domains"] | None, str | None]:
    """Return the distribution of the target's documents if all runs share one target."""
    names = {run.target for run in runs}
    found = domains.distribution(runs[0].target, "hard") if len(names) == 1 else None
    return found, None if found is None else runs[0].target
