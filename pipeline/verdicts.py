"""Verdicts on the documents of a source part: which are kept, and why the others are not.

Several stages give verdicts: quality, dedup, embed, semantic and sort. Each passes on those of the
stage before it, with reasons for the documents that it drops itself. embed and sort write verdicts
only if they could not process a document.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool

from data_catalog.errors import UserError
from data_catalog.format import tables
from data_catalog.format.accounts import Tally
from data_catalog.format.manifest import fingerprint
from pipeline.parts import Part
from pipeline.source.documents import Fault
from pipeline.source.stage import (
    CONTENT_KEY,
    DOCUMENTS_FILE,
    QUARANTINE_FILE,
    quarantine_table,
    source_file,
)

MINIMUM_JUDGED = 16  # documents of a file or target from which a model is judged
_BATCH_ROWS = 4_096
_MASK = b"clustermix.kept"  # key of the file's metadata: which rows are kept, hashed

logger = logging.getLogger(__name__)


def write_verdicts(path: Path, verdicts: pa.Table) -> None:
    """Write the verdicts on one part (tables.VERDICTS).

    The hash of the rows that are kept goes into the file's metadata.
    """
    digest = _digest(pc.is_null(verdicts["reason"]).to_numpy())
    pq.write_table(
        verdicts.cast(tables.VERDICTS).replace_schema_metadata({_MASK: digest}),
        path,
        compression="zstd",
    )


def read_verdicts(part: Part, verdicts: Part) -> pa.Table:
    """Return the final verdict on every document of `part`, in its order (tables.VERDICTS)."""
    return pq.read_table(_file(part, verdicts))


def latest_verdicts(source: Part, stages: Sequence[Part]) -> Part:
    """Return the last of `stages`, in the order of the build, that gave verdicts on a source part.

    Raises:
        ValueError: None of them did.
    """
    for stage in reversed(stages):
        if stage.has(f"{source.name}.parquet"):
            return stage
    raise ValueError(f"{source.place}: none of {stages} has verdicts on it.")


def final_verdicts(stages: Mapping[str, Sequence[Part]]) -> list[Part]:
    """Return the part with the final verdicts on each source part.

    Stages that have not run yet are left out of `stages`.
    """
    finals = []
    for number, source in enumerate(stages["source"]):
        given = [
            stages["dedup"][number],
            stages["embed"][number],
            *stages.get("semantic", ()),
            *([stages["sort"][number]] if "sort" in stages else []),
        ]
        finals.append(latest_verdicts(source, given))
    return finals


def embedded_verdicts(stages: Mapping[str, Sequence[Part]]) -> list[Part]:
    """Return the part with the verdicts on each source part that keep what has an embedding."""
    return [
        latest_verdicts(source, [unique, part])
        for source, unique, part in zip(
            stages["source"], stages["dedup"], stages["embed"], strict=True
        )
    ]


def quarantine(
    source: Part,
    verdicts: Part,
    faults: Mapping[int, str],
    reason: str,
    stage: str,
    folder: Path,
) -> Tally:
    """Give documents that a stage cannot process a verdict, and a row of the quarantine each.

    Writes the part's verdicts and `quarantine.parquet` (tables.QUARANTINE) to `folder`, if there
    are any such documents.

    Args:
        source: The source part.
        verdicts: The verdicts before this stage.
        faults: What is wrong with each document, by its row in the source part.
        reason: Reason of the verdict.
        stage: Name of the stage.
        folder: Folder of the stage's part.

    Returns:
        The amount of text of those documents.
    """
    if not faults:
        return Tally()
    table = read_verdicts(source, verdicts)
    reasons = table["reason"].to_pylist()
    for row in faults:
        reasons[row] = reason
    place = table.schema.get_field_index("reason")
    write_verdicts(
        folder / f"{source.name}.parquet",
        table.set_column(place, "reason", pa.array(reasons, pa.string())),
    )
    rows = sorted(faults)
    ids = pq.read_table(source.file(DOCUMENTS_FILE), columns=["doc_id"])["doc_id"]
    file = source_file(source)
    pq.write_table(
        quarantine_table(
            [
                Fault(file, None, reason, faults[row], doc_id=doc_id)
                for row, doc_id in zip(rows, ids.take(pa.array(rows)).to_pylist(), strict=True)
            ],
            stage,
        ),
        folder / QUARANTINE_FILE,
        compression="zstd",
    )
    characters = pc.sum(table["characters"].take(pa.array(rows))).as_py()
    return Tally(rows=len(rows), characters=characters)


def check_share(lost: int, documents: int, place: str, result: str, refusal: str) -> None:
    """Check that a model works: it fails for single documents, not for most of them.

    Args:
        lost: Number of documents without a result.
        documents: Number of documents.
        place: Name of the file or target, for the warning.
        result: What the documents lack, such as "tokens".
        refusal: Message of the error.

    Raises:
        UserError: More than half of at least `MINIMUM_JUDGED` documents have no result.
    """
    if lost * 2 > documents >= MINIMUM_JUDGED:
        raise UserError(refusal)
    if lost:
        logger.warning(
            "%s: %d of %d documents have no %s and are left out. The view quarantine lists them.",
            place,
            lost,
            documents,
            result,
        )


def kept_key(part: Part, verdicts: Part) -> str:
    """Return a fingerprint of the kept documents of `part`: their ids, texts and order.

    Later stages depend on this and not on `part.fingerprint` and `verdicts.fingerprint`. The key
    stays the same if the corpus is copied elsewhere, or if another target, shard or threshold
    leaves the same documents in the part. Reads the footers of two files.
    """
    content = (pq.read_schema(part.readable(DOCUMENTS_FILE)).metadata or {}).get(
        CONTENT_KEY.encode()
    )
    digest = (pq.read_schema(verdicts.readable(f"{part.name}.parquet")).metadata or {}).get(_MASK)
    if digest is None:
        digest = _digest(
            pc.is_null(
                pq.read_table(_file(part, verdicts), columns=["reason"])["reason"]
            ).to_numpy()
        )
    return fingerprint("kept", content.decode() if content else part.fingerprint, digest.decode())


def kept_characters(part: Part, verdicts: Part, groups: Sequence[int]) -> int:
    """Return the number of characters of the kept documents in some row groups of `part`."""
    with pq.ParquetFile(part.file(DOCUMENTS_FILE), pre_buffer=False) as file:
        table = _of_groups(read_verdicts(part, verdicts), file.metadata, groups)
    return int(pc.sum(table["characters"].filter(pc.is_null(table["reason"]))).as_py() or 0)


def kept_batches(
    part: Part, verdicts: Part, columns: list[str], groups: Sequence[int] | None = None
) -> Iterator[pa.Table]:
    """Yield the kept documents of `part`, reading `_BATCH_ROWS` at a time.

    Args:
        part: The source part.
        verdicts: The verdicts on it.
        columns: Columns of tables.SOURCE.
        groups: Row groups to read, ascending. None means all.
    """
    table = read_verdicts(part, verdicts)
    start = 0
    documents = part.file(DOCUMENTS_FILE) if groups is None else part.readable(DOCUMENTS_FILE)
    with pq.ParquetFile(documents, pre_buffer=False) as file:
        if groups is not None:
            table = _of_groups(table, file.metadata, groups)
        keep = pc.is_null(table["reason"])
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns, row_groups=groups):
            yield pa.Table.from_batches([batch]).filter(keep.slice(start, len(batch)))
            start += len(batch)


def _of_groups(verdicts: pa.Table, documents: pq.FileMetaData, groups: Sequence[int]) -> pa.Table:
    """Return the verdicts on the documents in some row groups of a file."""
    rows = [documents.row_group(group).num_rows for group in range(documents.num_row_groups)]
    first = np.cumsum([0, *rows]).tolist()
    slices = [verdicts.slice(first[group], rows[group]) for group in groups]
    return pa.concat_tables([verdicts.slice(0, 0), *slices])


def _file(part: Part, verdicts: Part) -> Path:
    return verdicts.file(f"{part.name}.parquet")


def _digest(kept: Bool[np.ndarray, " documents"]) -> bytes:
    return (
        hashlib.sha256(len(kept).to_bytes(8, "little") + np.packbits(kept).tobytes())
        .hexdigest()
        .encode()
    )
