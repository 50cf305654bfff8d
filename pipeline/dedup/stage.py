"""Verdicts before clustering: documents that quality kept are dropped if they are copies."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Int64

from data_catalog.format.accounts import Account, Tally
from data_catalog.format.manifest import fingerprint
from data_catalog.place import Folder
from pipeline.dedup.drops import REASONS, Codes, read_drops
from pipeline.parts import Part, make_part
from pipeline.quality.stage import VERDICTS_FILE
from pipeline.verdicts import write_verdicts

# Versions of the output:
# 1: shipped and exact copies.
# 2: also copies of targets, near copies and documents known already.
# 3: also near copies of targets.
# 4: a part for each source part; near copies are verified, and only of documents that stay.
VERSION = 4


def dedup_part(
    source: Part, judged: Part, drops: Sequence[Part], first: int, folder: Folder
) -> Part:
    """Write the verdicts on the documents of a part before clustering.

    Writes `NAME.parquet` (tables.VERDICTS), rows in the order of `source`. Documents that quality
    kept get the reason that `drops` has for them, if any.

    Args:
        source: The source part.
        judged: Quality's part.
        drops: Parts with documents to drop, see `pipeline.dedup.drops`.
        first: Position of the part's first document.
        folder: The part's folder.
    """

    def make(out: Path) -> Account:
        verdicts = pq.read_table(judged.file(VERDICTS_FILE))
        positions, codes = read_drops(drops, first, first + len(verdicts))
        table, account = decide(verdicts, positions - first, codes, REASONS)
        write_verdicts(out / f"{source.name}.parquet", table)
        return account

    inputs = [source.name, source.fingerprint, judged.fingerprint]
    dropped = [part.fingerprint for part in drops]
    return make_part(folder, fingerprint("dedup", VERSION, inputs, first, dropped), make)


def decide(
    verdicts: pa.Table, rows: Int64[np.ndarray, " copies"], codes: Codes, reasons: Sequence[str]
) -> tuple[pa.Table, Account]:
    """Return one part's verdicts with `reasons[codes[i]]` at `rows[i]`, and the account.

    The account covers the documents that were kept before.
    """
    lengths = verdicts["characters"].to_numpy()
    read = kept_mask(verdicts)
    code = np.full(len(read), len(reasons))
    code[rows] = codes
    added = pa.array([*reasons, None], pa.string()).take(pa.array(code))
    final = verdicts.set_column(
        verdicts.schema.get_field_index("reason"), "reason", pc.coalesce(verdicts["reason"], added)
    )

    def tally(mask: Bool[np.ndarray, " documents"]) -> Tally:
        return Tally(rows=int(mask.sum()), characters=int(lengths[mask].sum()))

    dropped = {
        reason: tally(read & (code == i))
        for i, reason in enumerate(reasons)
        if (read & (code == i)).any()
    }
    return final, Account(
        read=tally(read), kept=tally(read & (code == len(reasons))), dropped=dropped
    )


def kept_mask(verdicts: pa.Table) -> Bool[np.ndarray, " documents"]:
    mask: Bool[np.ndarray, " documents"] = pc.is_null(verdicts["reason"]).to_numpy()
    return mask
