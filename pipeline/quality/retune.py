"""Judge a finished catalog by other thresholds, from its stored signals, without reading text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int

from data_catalog.errors import UserError
from data_catalog.format.manifest import read_manifest
from pipeline.config import Bounds, Quality
from pipeline.quality.rules import RULE_PRESETS, Rule, resolve
from pipeline.quality.signals.columns import signal_columns
from pipeline.quality.stage import failures

# Folders of a catalog with a file per part (tables.MEASURED and tables.VERDICTS).
SIGNALS_FOLDER, VERDICTS_FOLDER = "signals", "verdicts"
MAXIMUM_REPORT_SOURCES = 20  # listed in a report, largest first
_BATCH_ROWS = 16_384
_REGROUP_ROWS = 1_000_000


@dataclass(frozen=True)
class Retuned:
    """Effect of a catalog's own rules and of other ("asked") rules on all documents that were read.

    Shares are of all those documents.

    `rules`: one row per asked rule, in order, with its bounds. `without` is the number of documents
    that lack its signal. Then come the documents and characters that fail it, and those that fail
    no other rule, which is the cost of the rule.

    `kept`: one row each for `built` (the catalog's rules, computed again) and `asked`, with the
    documents and characters that pass all rules, those of them that dedup dropped, and those left.
    The row `back` has those left by the asked rules only, which dedup has not seen. The row `gone`
    has those left by the catalog's rules only.

    `sources`: the largest sources by characters, with the share of their documents left by either.
    """

    rules: pa.Table
    kept: pa.Table
    sources: pa.Table


@dataclass(frozen=True)
class MeasuredDocuments:
    """A batch of the documents that a catalog read, including those that were dropped."""

    source: pa.Array
    characters: Int[np.ndarray, " documents"]
    signals: pa.MapArray
    unique: Bool[np.ndarray, " documents"]  # not dropped by dedup


def choose_rules(
    root: Path, preset: str | None, thresholds: Mapping[str, Bounds]
) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """Return the rules that the catalog was built with, and the asked rules.

    Without a preset, the asked rules are the catalog's own, with `thresholds` over its thresholds.

    Raises:
        UserError: There is no catalog at `root`, a preset or rule is unknown, or there are no
            rules to judge by.
    """
    own = Quality.model_validate(read_manifest(root).config["quality"])
    built = resolve(own.preset, own.thresholds)
    asked = resolve(
        preset or own.preset,
        thresholds if preset else {**own.thresholds, **_over(own.thresholds, thresholds)},
    )
    if not asked:
        raise UserError(
            f"quality.preset none: {root} was built without rules. Choose a preset: "
            f"{', '.join(name for name in RULE_PRESETS if name != 'none')}."
        )
    return built, asked


def _over(own: Mapping[str, Bounds], thresholds: Mapping[str, Bounds]) -> dict[str, Bounds]:
    """Return the given thresholds, each over the catalog's own for the same rule."""
    return {
        name: own[name].model_copy(update=bounds.model_dump(exclude_none=True))
        if name in own
        else bounds
        for name, bounds in thresholds.items()
    }


def retune(
    root: Path,
    preset: str | None = None,
    thresholds: Mapping[str, Bounds] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Retuned:
    """Judge every document that was read for the catalog at `root` by other rules.

    Documents that dedup dropped stay dropped. The copy that it kept depended on the rules of the
    build, so the documents of `back` may include copies that a new build drops. Memory: one batch,
    and one row per source.

    Args:
        root: The catalog.
        preset: See `choose_rules`.
        thresholds: See `choose_rules`.
        on_progress: Called after each batch with the number of documents judged and the total.
    """
    built, asked = choose_rules(root, preset, thresholds or {})
    failing, only, without = (np.zeros((len(asked), 2), np.int64) for _ in range(3))
    # Rows: kept by the rules, then dropped by dedup, and the remaining ones.
    kept = {name: np.zeros((3, 2), np.int64) for name in ("read", "built", "asked", "back", "gone")}
    sources: list[pa.Table] = []
    for batch in read_measured(root, on_progress):
        failed = failures(batch.signals, asked)
        number = failed.sum(axis=0)
        for i in range(len(asked)):
            failing[i] += _amount(failed[i], batch)
            only[i] += _amount(failed[i] & (number == 1), batch)
        for i, value in enumerate(
            signal_columns(batch.signals, [rule.signal for rule in asked]).values()
        ):
            without[i] += _amount(np.isnan(value), batch)
        before, after = ~failures(batch.signals, built).any(axis=0), number == 0
        everything = np.ones(len(after), bool)
        groups = {
            "read": everything,
            "built": before,
            "asked": after,
            "back": after & ~before,
            "gone": before & ~after,
        }
        for name, mask in groups.items():
            kept[name] += [
                _amount(mask, batch),
                _amount(mask & ~batch.unique, batch),
                _amount(mask & batch.unique, batch),
            ]
        sources.append(_by_source(batch, before & batch.unique, after & batch.unique))
        if sum(map(len, sources)) > _REGROUP_ROWS:
            sources = [_regroup(sources)]
    return Retuned(
        _rules_table(asked, failing, only, without),
        _kept_table(kept),
        _sources_table(_regroup(sources)),
    )


def read_measured(
    root: Path, on_progress: Callable[[int, int], None] | None = None
) -> Iterator[MeasuredDocuments]:
    """Yield the signals of every document that was read, and whether dedup kept it.

    Catalogs without verdicts count every document as kept by dedup.

    Raises:
        UserError: The catalog has no signals.
    """
    files = sorted((root / SIGNALS_FOLDER).glob("*.parquet"))
    if not files:
        raise UserError(
            f"{root}: {SIGNALS_FOLDER}/ is empty or missing. "
            "Build the catalog again, or fetch it with its signals."
        )
    done, total = 0, sum(pq.read_metadata(path).num_rows for path in files) if on_progress else 0
    for path in files:
        verdicts = root / VERDICTS_FOLDER / path.name
        reasons = (
            pq.read_table(verdicts, columns=["reason"])["reason"] if verdicts.is_file() else None
        )
        start = 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(
                _BATCH_ROWS, columns=["source", "characters", "signals"]
            ):
                unique = np.ones(len(batch), bool)
                if reasons is not None:
                    copies = pc.starts_with(reasons.slice(start, len(batch)), "dedup.")
                    unique = ~pc.fill_null(copies, False).to_numpy()
                yield MeasuredDocuments(
                    batch["source"], batch["characters"].to_numpy(), batch["signals"], unique
                )
                start += len(batch)
                if on_progress:
                    done += len(batch)
                    on_progress(done, total)


def _amount(mask: Bool[np.ndarray, " documents"], batch: MeasuredDocuments) -> list[int]:
    return [int(mask.sum()), int(batch.characters[mask].sum())]


def _by_source(
    batch: MeasuredDocuments,
    before: Bool[np.ndarray, " documents"],
    after: Bool[np.ndarray, " documents"],
) -> pa.Table:
    flags = {
        "built": before.astype(np.int64),
        "asked": after.astype(np.int64),
        "documents": np.ones(len(before), np.int64),
    }
    return _regroup([pa.table({"source": batch.source, "characters": batch.characters, **flags})])


def _regroup(tables: list[pa.Table]) -> pa.Table:
    signal_columns = ["documents", "characters", "built", "asked"]
    grouped = (
        pa.concat_tables(tables)
        .group_by("source")
        .aggregate([(name, "sum") for name in signal_columns])
    )
    return grouped.select(["source", *(f"{name}_sum" for name in signal_columns)]).rename_columns(
        ["source", *signal_columns]
    )


def _rules_table(
    rules: Sequence[Rule], failing: np.ndarray, only: np.ndarray, without: np.ndarray
) -> pa.Table:
    return pa.table(
        {
            "rule": [rule.id for rule in rules],
            "signal": [rule.signal for rule in rules],
            "least": pa.array([rule.least for rule in rules], pa.float64()),
            "most": pa.array([rule.most for rule in rules], pa.float64()),
            "null": [rule.null for rule in rules],
            "without": without[:, 0],
            "documents": failing[:, 0],
            "characters": failing[:, 1],
            "only_documents": only[:, 0],
            "only_characters": only[:, 1],
        }
    )


def _kept_table(kept: Mapping[str, np.ndarray]) -> pa.Table:
    read = np.maximum(kept["read"][0], 1)
    rows = [
        {
            "rules": name,
            "pass_documents": int(amounts[0, 0]),
            "pass_characters": int(amounts[0, 1]),
            "copies_documents": int(amounts[1, 0]),
            "documents": int(amounts[2, 0]),
            "characters": int(amounts[2, 1]),
            "share_documents": float(amounts[2, 0] / read[0]),
            "share_characters": float(amounts[2, 1] / read[1]),
        }
        for name, amounts in kept.items()
    ]
    return pa.Table.from_pylist(rows)


def _sources_table(sources: pa.Table) -> pa.Table:
    largest = sources.sort_by([("characters", "descending"), ("source", "ascending")]).slice(
        0, MAXIMUM_REPORT_SOURCES
    )
    documents: Float[np.ndarray, " sources"] = largest["documents"].to_numpy()
    for name in ("built", "asked"):
        largest = largest.set_column(
            largest.schema.get_field_index(name),
            name,
            pa.array(largest[name].to_numpy() / documents),
        )
    return largest
