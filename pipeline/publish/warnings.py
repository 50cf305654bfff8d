"""Warnings of a catalog about its corpus: damage, lost documents, columns that match nothing."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.format.accounts import Account
from pipeline.config import Labels
from pipeline.describe.health import read_labels
from pipeline.grams import MINIMUM_SHARE
from pipeline.source.config import AnySource
from pipeline.source.unread import SUSPECT, WHY

NOTICEABLE_LEAKAGE = 0.01  # share of a split's documents
MAXIMUM_FILES = 20  # files that have a warning of their own
_COLUMN_NOTES = ("id", "url", "source")  # `no_id`, ...: see `pipeline.source.records`


def damage_warnings(faults: pa.Table, accounts: Iterable[Account]) -> Iterator[str]:
    """Yield a sentence per damaged file, and per reason for which files may be missing.

    Args:
        faults: The faults and notes (tables.QUARANTINE). A damaged file has one without a row.
        accounts: Accounts of all parts that have faults or notes, to tell the two apart.
    """
    noted = {*WHY, *(reason for account in accounts for reason in account.noted)}
    of_files = pc.and_(pc.is_null(faults["row"]), pc.is_null(faults["doc_id"]))
    rows = faults.filter(of_files).to_pylist()
    for row in rows:
        if row["reason"] in SUSPECT:
            yield f"{row['reason']}: {row['detail']}."
    damaged = [row for row in rows if row["reason"] not in noted]
    for row in damaged[:MAXIMUM_FILES]:
        yield f"{row['file']}: {row['reason']}, {row['detail']}. Its other documents are missing."
    if more := Counter(row["reason"] for row in damaged[MAXIMUM_FILES:]):
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in sorted(more.items()))
        yield f"{more.total():,} more damaged files ({reasons}). The view quarantine names them."


def document_warnings(accounts: Mapping[str, Account]) -> Iterator[str]:
    """Yield a sentence per reason for which a stage after the source lost documents."""
    for stage, account in accounts.items():
        for reason, lost in account.failed.items() if stage != "source" else ():
            yield (
                f"{reason}: the stage {stage} could not process {lost.rows:,} of "
                f"{account.read.rows:,} documents. The view quarantine names them."
            )


def column_warnings(accounts: Mapping[str, Account], source: AnySource) -> Iterator[str]:
    """Yield a sentence per column that the config names and that no document has."""
    columns, account = getattr(source, "columns", None), accounts.get("source")
    if columns is None or account is None or not account.kept.rows:
        return
    for field in _COLUMN_NOTES:
        name, missing = getattr(columns, field), account.noted.get(f"no_{field}")
        if name != field and missing and missing.rows == account.kept.rows:
            yield f'source.columns.{field}: no document has a field "{name}".'


def label_warnings(health: pa.Table, labels: Labels | None) -> Iterator[str]:
    """Yield a sentence if no label belongs to a document of the catalog."""
    if labels is None:
        return
    labelled = health.filter(pc.equal(health["measure"], "labelled"))["value"]
    if not (pc.sum(labelled).as_py() or 0):
        ids = read_labels(labels)["doc_id"].to_pylist()
        examples = ", ".join(ids[:3])
        yield (
            f"labels.path {labels.path}: none of its {len(ids):,} ids is a document of the "
            f"catalog, for example {examples}. Compare them with doc_id of the view documents."
        )


def leakage_warnings(leakage: pa.Table) -> Iterator[str]:
    """Yield a sentence per target and split of which `NOTICEABLE_LEAKAGE` can be trained on.

    A document of the validation or test split counts if `MINIMUM_SHARE` of its 13-grams are in one
    document of the corpus, or of the target's align split.

    Args:
        leakage: A table of tables.LEAKAGE.
    """
    for name in pc.unique(leakage["name"]).to_pylist():
        for split in ("validation", "test"):
            of_split = pc.and_(pc.equal(leakage["name"], name), pc.equal(leakage["split"], split))
            documents = leakage.filter(of_split)
            for column, texts, remedy in (
                (
                    "in_corpus",
                    "the corpus",
                    'The tier "minhash" of dedup.tiers removes near copies.',
                ),
                ("in_align", "its align split", "Put documents with common passages in one file."),
            ):
                found = pc.sum(pc.greater_equal(documents[column], MINIMUM_SHARE)).as_py() or 0
                if found and found >= NOTICEABLE_LEAKAGE * len(documents):
                    yield (
                        f"target {name}: for {found:,} of its {len(documents):,} {split} documents "
                        f"({found / len(documents):.1%}), half or more of the 13-word sequences "
                        f"are in one document of {texts}. The view leakage lists them. {remedy}"
                    )
