"""Judge documents by rules on their quality signals; every document keeps a bitmask of all rules it fails."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int, UInt64

from data_catalog import tables
from data_catalog.manifest import fingerprint
from data_catalog.records import Account, Tally
from pipeline.config import Build
from pipeline.parts import Part, make_part
from pipeline.rules import Rule, resolve
from pipeline.source import DOCUMENTS

VERSION = 1
VERDICTS = "verdicts.parquet"
_BATCH_ROWS = 8_192


def judge_part(source: Part, folder: Path, config: Build) -> Part:
    """Write `verdicts.parquet` (tables.VERDICTS), one row a document of `source`, in its order.

    The reason is `preset.rule` of the first rule failed, in the order of the preset; null where none is.

    Raises:
        UserError: `quality.thresholds` names a rule that the preset lacks.
    """
    preset = config.quality.preset
    rules = resolve(preset, config.quality.thresholds)
    reasons = [f"{preset}.{rule.id}" for rule in rules]

    def make(out: Path) -> Account:
        rows = np.zeros(len(rules) + 1, np.int64)  # documents by first rule failed, then the kept
        characters = np.zeros(len(rules) + 1, np.int64)
        with (
            pq.ParquetFile(source.folder / DOCUMENTS) as file,
            pq.ParquetWriter(out / VERDICTS, tables.VERDICTS, compression="zstd") as writer,
        ):
            for batch in file.iter_batches(_BATCH_ROWS, columns=["id_int", "text", "signals"]):
                lengths = pc.utf8_length(batch["text"]).to_numpy(zero_copy_only=False).astype(np.int64)
                failed = failures(batch["signals"], rules)
                first = np.where(failed.any(axis=0), failed.argmax(axis=0), len(rules)) if rules else np.zeros(len(batch), np.int64)
                rows += np.bincount(first, minlength=len(rules) + 1)
                np.add.at(characters, first, lengths)
                writer.write_batch(_verdicts(batch["id_int"], lengths, failed, first, reasons))
        tallies = [Tally(rows=int(r), characters=int(c)) for r, c in zip(rows, characters, strict=True)]
        dropped = {reason: tally for reason, tally in zip(reasons, tallies[:-1], strict=True) if tally.rows}
        return Account(read=sum(tallies, Tally()), kept=tallies[-1], dropped=dropped)

    return make_part(folder, fingerprint("quality", VERSION, config.quality, list(rules), source.fingerprint), make)


def failures(signals: pa.MapArray, rules: Sequence[Rule]) -> Bool[np.ndarray, "rules documents"]:
    """Which rules each document fails. A signal that is absent, null or not a number fails none."""
    values = _columns(signals, sorted({rule.signal for rule in rules}))
    failed = np.zeros((len(rules), len(signals)), dtype=bool)
    for row, rule in enumerate(rules):
        value = values[rule.signal]  # comparisons with NaN are false
        if rule.least is not None:
            failed[row] |= value < rule.least
        if rule.most is not None:
            failed[row] |= value > rule.most
    return failed


def bitmask(failed: Bool[np.ndarray, "rules documents"]) -> UInt64[np.ndarray, " documents"]:
    """Bit i is set where rule i fails."""
    bits = np.left_shift(np.uint64(1), np.arange(len(failed), dtype=np.uint64))
    mask: UInt64[np.ndarray, " documents"] = (failed * bits[:, None]).sum(axis=0, dtype=np.uint64)
    return mask


def _columns(signals: pa.MapArray, names: list[str]) -> dict[str, Float[np.ndarray, " documents"]]:
    """Each named signal of every document, NaN where it is absent; the last one counts if a name is there twice."""
    offsets = signals.offsets.to_numpy()  # of a slice: still into all keys
    entries = slice(int(offsets[0]), int(offsets[-1]))
    owner = np.repeat(np.arange(len(signals)), np.diff(offsets))
    numbers = signals.items.to_numpy(zero_copy_only=False)[entries]
    codes = pc.fill_null(pc.index_in(signals.keys, value_set=pa.array(names, pa.string())), -1)
    code = codes.to_numpy(zero_copy_only=False)[entries]
    columns = {}
    for index, name in enumerate(names):
        column = np.full(len(signals), np.nan)
        here = code == index
        column[owner[here]] = numbers[here]
        columns[name] = column
    return columns


def _verdicts(
    numbers: pa.Array,
    lengths: Int[np.ndarray, " documents"],
    failed: Bool[np.ndarray, "rules documents"],
    first: Int[np.ndarray, " documents"],
    reasons: list[str],
) -> pa.RecordBatch:
    names = pa.array([*reasons, None], pa.string())  # the last is the kept ones'
    return pa.RecordBatch.from_arrays(
        [numbers, pa.array(lengths), pa.array(bitmask(failed)), names.take(pa.array(first))], schema=tables.VERDICTS
    )
