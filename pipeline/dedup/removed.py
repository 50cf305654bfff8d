"""Documents that each rule and each dedup tier dropped, by source."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.format import tables
from pipeline.parts import Part
from pipeline.source.stage import DOCUMENTS_FILE
from pipeline.verdicts import read_verdicts

_KEYS = ["source", "reason"]
_MERGE_ROWS = 1_000_000  # counts held before they are added up, at least


def removed_by_source(sources: Sequence[Part], verdicts: Sequence[Part]) -> pa.Table:
    """Return tables.REMOVED, by reason, with the source that lost the most rows first.

    `verdicts` has the part with the final verdicts on each source part.

    Documents without a source count for the source null. Memory: two counts per source and reason,
    and the verdicts of one part at a time.
    """
    limit = _MERGE_ROWS
    waiting: list[pa.Table] = [
        pa.table(
            {
                "source": pa.array([], pa.string()),
                "reason": pa.array([], pa.string()),
                **_no_counts(),
            }
        )
    ]
    for part, final in zip(sources, verdicts, strict=True):
        table = read_verdicts(part, final).select(["reason", "characters"])
        source = pq.read_table(part.readable(DOCUMENTS_FILE), columns=["source"])["source"]
        ones = np.ones(len(source), np.int64)
        waiting.append(
            _sum(
                pa.table(
                    {
                        "source": source,
                        "reason": table["reason"],
                        "rows": ones,
                        "characters": table["characters"],
                    }
                )
            )
        )
        if sum(map(len, waiting)) > limit:
            waiting = [_sum(pa.concat_tables(waiting))]
            # Sums that grow are added up again only when they have doubled, not after every part.
            limit = max(_MERGE_ROWS, 2 * len(waiting[0]))
    counts = _sum(pa.concat_tables(waiting))
    totals = counts.group_by("source").aggregate([("rows", "sum")])
    # Unlike a join, this also finds the null source.
    index = pc.index_in(counts["source"], value_set=totals["source"])
    share = pc.divide(pc.cast(counts["rows"], pa.float64()), totals["rows_sum"].take(index))
    lost = counts.append_column("share", share).filter(pc.is_valid(counts["reason"]))
    order = [("reason", "ascending"), ("rows", "descending"), ("source", "ascending")]
    return lost.sort_by(order).select(tables.REMOVED.names).cast(tables.REMOVED)


def _no_counts() -> dict[str, pa.Array]:
    return {name: pa.array([], pa.int64()) for name in ("rows", "characters")}


def _sum(counts: pa.Table) -> pa.Table:
    sums = counts.group_by(_KEYS).aggregate([("rows", "sum"), ("characters", "sum")])
    return sums.rename_columns([*_KEYS, "rows", "characters"])
