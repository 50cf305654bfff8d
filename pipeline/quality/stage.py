"""Judge documents by rules on their quality signals.

Every document keeps a bitmask of all rules it fails.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Int, UInt64

from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.manifest import fingerprint
from data_catalog.place import Folder
from pipeline.config import Quality
from pipeline.parts import Part, make_part
from pipeline.quality.rules import Rule, resolve
from pipeline.quality.signals import measure
from pipeline.quality.signals.columns import signal_columns
from pipeline.quality.signals.fill import fill_signals
from pipeline.source.stage import DOCUMENTS_FILE

# Versions of the output:
# 1: shipped signals and rules.
# 2: signals that a source lacks are measured.
VERSION = 2
VERDICTS_FILE = "verdicts.parquet"
SIGNALS_FILE = "signals.parquet"


def judge_part(source: Part, folder: Folder, config: Quality) -> Part:
    """Judge the documents of one source part by the quality rules.

    Writes `verdicts.parquet` (tables.VERDICTS) and `signals.parquet` (tables.MEASURED), one row per
    document of `source`, in its order. The reason is `preset.rule` of the first failed rule in the
    order of the preset, or null. Signals are the source's own, or computed (`quality.compute`) for
    documents without any. One row group of `source` is in memory at a time.

    Raises:
        UserError: `quality.thresholds` names a rule that the preset lacks, or bounds that no
            document can pass.
    """
    preset = config.preset
    rules = resolve(preset, config.thresholds)
    reasons = [f"{preset}.{rule.id}" for rule in rules]

    def make(out: Path) -> Account:
        rows = np.zeros(len(rules) + 1, np.int64)  # documents by first failed rule, then kept ones
        characters = np.zeros(len(rules) + 1, np.int64)
        with (
            pq.ParquetFile(source.file(DOCUMENTS_FILE), pre_buffer=False) as file,
            pq.ParquetWriter(out / VERDICTS_FILE, tables.VERDICTS, compression="zstd") as verdicts,
            pq.ParquetWriter(out / SIGNALS_FILE, tables.MEASURED, compression="zstd") as measured,
        ):
            for group in range(file.num_row_groups):
                batch = _measured(
                    file.read_row_group(group, ["id_int", "source", "text", "signals"]), config
                )
                lengths = batch["characters"].to_numpy()
                failed = failures(batch["signals"], rules)
                first = (
                    np.where(failed.any(axis=0), failed.argmax(axis=0), len(rules))
                    if rules
                    else np.zeros(len(batch), np.int64)
                )
                rows += np.bincount(first, minlength=len(rules) + 1)
                np.add.at(characters, first, lengths)
                measured.write_batch(batch)
                verdicts.write_batch(_verdicts(batch["id_int"], lengths, failed, first, reasons))
        tallies = [
            Tally(rows=int(r), characters=int(c)) for r, c in zip(rows, characters, strict=True)
        ]
        dropped = {
            reason: tally for reason, tally in zip(reasons, tallies[:-1], strict=True) if tally.rows
        }
        return Account(read=sum(tallies, Tally()), kept=tallies[-1], dropped=dropped)

    made_from = [
        "quality",
        VERSION,
        preset,
        [_bounds(rule) for rule in rules],
        signals_key(source, config),
    ]
    return make_part(folder, fingerprint(*made_from), make)


def read_signals(judged: Part, signal_columns: Sequence[str] | None = None) -> pa.Table:
    """Return the signals of a judged part (tables.MEASURED), in the row order of its source."""
    return pq.read_table(judged.file(SIGNALS_FILE), columns=signal_columns)


def signals_key(source: Part, config: Quality) -> str:
    """Return a fingerprint of the signals of a source part. It does not depend on the rules."""
    return fingerprint("signals", VERSION, config.compute, measure.VERSION, source.fingerprint)


def failures(signals: pa.MapArray, rules: Sequence[Rule]) -> Bool[np.ndarray, "rules documents"]:
    """Return whether each document fails each rule.

    A signal that is absent, null or not a number fails the rules whose `null` is `drop`.
    """
    values = signal_columns(signals, sorted({rule.signal for rule in rules}))
    failed = np.zeros((len(rules), len(signals)), dtype=bool)
    for row, rule in enumerate(rules):
        failed[row] = fails(values[rule.signal], rule)
    return failed


def fails(values: np.ndarray, rule: Rule) -> Bool[np.ndarray, " documents"]:
    """Return whether each value of the rule's signal fails it. NaN stands for null."""
    failed = np.isnan(values) & (rule.null == "drop")  # comparisons with NaN are false
    if rule.least is not None:
        failed |= values < rule.least
    if rule.most is not None:
        failed |= values > rule.most
    return failed


def bitmask(failed: Bool[np.ndarray, "rules documents"]) -> UInt64[np.ndarray, " documents"]:
    """Return a mask per document in which bit i is set if rule i fails."""
    bits = np.left_shift(np.uint64(1), np.arange(len(failed), dtype=np.uint64))
    mask: UInt64[np.ndarray, " documents"] = (failed * bits[:, None]).sum(axis=0, dtype=np.uint64)
    return mask


def _bounds(rule: Rule) -> list[object]:
    """Return the fields of a rule that decide a verdict."""
    return [rule.id, rule.signal, rule.least, rule.most, rule.null]


def _measured(group: pa.Table, config: Quality) -> pa.RecordBatch:
    text, signals = group["text"].combine_chunks(), group["signals"].combine_chunks()
    if config.compute == "missing":
        signals = fill_signals(signals, text)
    lengths = pc.utf8_length(text).cast(pa.int64())
    numbers, source = group["id_int"].combine_chunks(), group["source"].combine_chunks()
    return pa.RecordBatch.from_arrays([numbers, source, lengths, signals], schema=tables.MEASURED)


def _verdicts(
    numbers: pa.Array,
    lengths: Int[np.ndarray, " documents"],
    failed: Bool[np.ndarray, "rules documents"],
    first: Int[np.ndarray, " documents"],
    reasons: list[str],
) -> pa.RecordBatch:
    names = pa.array([*reasons, None], pa.string())  # the last is for kept documents
    return pa.RecordBatch.from_arrays(
        [numbers, pa.array(lengths), pa.array(bitmask(failed)), names.take(pa.array(first))],
        schema=tables.VERDICTS,
    )
