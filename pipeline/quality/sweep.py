"""Sweep the bound of one rule over a finished catalog, without reading text."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_catalog.errors import UserError
from pipeline.config import Bounds
from pipeline.quality.retune import choose_rules, read_measured
from pipeline.quality.rules import Rule
from pipeline.quality.signals.columns import signal_columns
from pipeline.quality.stage import fails, failures

SWEEP_QUANTILES = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1)


def sweep(
    root: Path,
    rule: str,
    preset: str | None = None,
    thresholds: Mapping[str, Bounds] | None = None,
    quantiles: Sequence[float] = SWEEP_QUANTILES,
    on_progress: Callable[[int, int], None] | None = None,
) -> pa.Table:
    """Return the share of documents kept by each bound on one rule's signal.

    The other rules stay as they are. The result has one row per quantile of the signal's values.
    `bound` is the value. `most_documents` and `most_characters` are the shares of all documents and
    characters kept if it is the rule's only bound, from above; `least_documents` and
    `least_characters` if it is the only one, from below. Memory: about 40 bytes per document.

    Args:
        root: The catalog.
        rule: The name of a rule, or of a signal without a rule.
        preset: See `pipeline.quality.retune.choose_rules`.
        thresholds: See `pipeline.quality.retune.choose_rules`.
        quantiles: Quantiles of the signal's values.
        on_progress: See `pipeline.quality.retune.retune`.

    Raises:
        UserError: The rules are rejected, see `choose_rules`, or no document has the signal.
    """
    _, rules = choose_rules(root, preset, thresholds or {})
    swept = next(
        (known for known in rules if known.id == rule), Rule(id=rule, signal=rule, threshold="none")
    )
    others = [known for known in rules if known.id != rule]
    values, sizes, passes = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0, bool)]
    for batch in read_measured(root, on_progress):
        values.append(signal_columns(batch.signals, [swept.signal])[swept.signal])
        sizes.append(batch.characters)
        passes.append(~failures(batch.signals, others).any(axis=0) & batch.unique)
    value, size, left = np.concatenate(values), np.concatenate(sizes), np.concatenate(passes)
    bounds = (
        np.unique(np.quantile(value[~np.isnan(value)], quantiles, method="inverted_cdf"))
        if not np.isnan(value).all()
        else np.zeros(0)
    )
    if not len(bounds):
        known = ", ".join(known.id for known in rules)
        raise UserError(
            f"sweep {rule}: no document of {root} has the signal {swept.signal}. "
            f"Give the name of a rule ({known}) or of a signal."
        )
    rows = []
    for bound in bounds.tolist():
        row: dict[str, float] = {
            "quantile": float((value <= bound).sum() / (~np.isnan(value)).sum()),
            "bound": bound,
        }
        for side in ("most", "least"):
            bounded = swept.model_copy(update={"least": None, "most": None, side: bound})
            passed = left & ~fails(value, bounded)
            row |= {
                f"{side}_documents": passed.mean(),
                f"{side}_characters": size[passed].sum() / max(size.sum(), 1),
            }
        rows.append(row)
    return pa.Table.from_pylist(rows)
