"""Export documents as text for other trainers.

Documents are selected by domain or by an SQL condition, or sampled with the weights of a run.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from data_catalog.errors import UserError, suggestion
from data_catalog.export.export_record import (
    EXPORT,
    DomainShare,
    Exported,
    ExportedShard,
    Selection,
)
from data_catalog.export.run_mixture import last_mixture, train_tokens
from data_catalog.export.sampling import DocumentSample, read_rows, sample_documents
from data_catalog.export.shards import Format, cut, shuffled, write_shards
from data_catalog.folders import check_utf8_path
from data_catalog.format import tables
from data_catalog.format.file_cache import keeping_used_files
from data_catalog.format.manifest import fingerprint, read_manifest, sha256_file, write_json
from data_catalog.format.run_record import read_run_record
from data_catalog.place import Folder
from data_catalog.query.database import Catalog, open
from data_catalog.temporary import replacing

DATA = "data"  # folder that contains only the shards
_MAXIMUM_SHARDS = 4096  # files that are open at once while documents are distributed

# Called with the number of finished documents, of all documents, and of bytes of text so far.
OnDocuments = Callable[[int, int, int], None]


def export_documents(
    root: Folder,
    out: Path,
    *,
    level: int | None = None,
    domains: Sequence[int] = (),
    where: str | None = None,
    weights: Path | None = None,
    tokens: int | None = None,
    seed: int = 0,
    split: Literal["train", "heldout", "all"] = "train",
    columns: Sequence[str] = ("doc_id", "text"),
    form: Format = "jsonl",
    shard_megabytes: int = 256,
    version: int | None = None,
    on_documents: OnDocuments | None = None,
) -> Exported:
    """Write documents of a catalog to `out/data/shard_00000.jsonl` and so on.

    `out/export.json` describes the export. The folder appears only when the export is complete. An
    identical export is not repeated. Memory is bounded by a row group of the catalog, or by a shard
    for an export by weights. Of a catalog in a store, the files of documents that can be needed are
    downloaded into the cache of this machine.

    Args:
        root: Folder of the catalog, or its URL in an object store.
        out: Folder of the export.
        level: Level of `domains`.
        domains: Domains to export. If empty, all documents are exported.
        where: SQL condition over the columns of the view `documents`.
        weights: Folder of a finished run. Training documents are sampled without replacement with
            its last weights over domains, in random order, until there are about `tokens` tokens.
            Other domains supply the tokens that an exhausted domain lacks. Cannot be combined with
            `level`, `domains`, `where` and `split`.
        tokens: Number of tokens to sample by weights.
        seed: Seed of the sample and of its order.
        split: Split to export.
        columns: Columns of the view `documents`.
        form: Format of the shards.
        shard_megabytes: Approximate size of a shard in memory. Parquet files are smaller.
        version: Version of the catalog. None means the newest.
        on_documents: Progress callback.

    Returns:
        The contents of `out/export.json`.

    Raises:
        DamagedFileError: A file of documents is missing, or its checksum differs.
        UserError: The arguments do not fit the catalog or each other, no document matches, or `out`
            contains something else.
    """
    check_utf8_path(out, "out")
    catalog = open(root, version)
    selection = Selection(
        level=level,
        domains=tuple(domains),
        where=where,
        weights=None if weights is None else str(weights),
        tokens=tokens,
        seed=seed,
        split=split,
        columns=tuple(columns),
        format=form,
        shard_megabytes=shard_megabytes,
    )
    _check(catalog, selection)
    key = fingerprint(
        "export",
        catalog.manifest.fingerprint,
        selection.model_copy(update={"weights": None}),
        _log(weights),
    )
    if (out / EXPORT).is_file():
        existing = _read(out)
        if existing.fingerprint == key:
            return existing
        raise UserError(f"{out}: contains another export. Give another folder, or remove it.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: not empty. Give a new folder.")
    identity: dict[str, Any] = {
        "catalog": catalog.manifest.fingerprint,
        "version": catalog.version,
        "selection": selection,
        "fingerprint": key,
    }
    kept = keeping_used_files() if catalog.files.store else nullcontext()
    with kept, replacing(out) as temporary:
        catalog.files.verified.compare(_stored(catalog, selection))
        temporary.mkdir()
        make = _by_weights if selection.weights else _by_query
        exported = Exported(**identity, **make(catalog, selection, temporary, on_documents))
        write_json(temporary / EXPORT, exported)
    return exported


def _stored(catalog: Catalog, selection: Selection) -> list[str]:
    """Return the files of documents that a selection can need."""
    folders = ["documents/"]
    if selection.level is not None:
        inside = selection.level // catalog.levels.granularities[0]
        tops = {domain // inside for domain in selection.domains}
        folders = [f"documents/top={top:04d}/" for top in tops]
    return [name for name in catalog.manifest.files if name.startswith(tuple(folders))]


def _check(catalog: Catalog, selection: Selection) -> None:
    if unknown := sorted(set(selection.columns) - set(tables.DOCUMENTS.names)):
        raise UserError(
            f"column {unknown[0]}: unknown. "
            f"{suggestion(unknown[0], tables.DOCUMENTS.names, 'Known columns')}"
        )
    if not selection.columns or len(set(selection.columns)) < len(selection.columns):
        raise UserError(
            f"columns {', '.join(selection.columns) or 'none'}: expected at least one column, "
            "each given once."
        )
    if selection.shard_megabytes < 1:
        raise UserError(f"shard_megabytes {selection.shard_megabytes}: expected at least 1.")
    catalog.files.require("documents")
    if (selection.weights is None) != (selection.tokens is None):
        raise UserError(
            "weights, tokens: only one of them is given. Give both the folder of a run and the "
            "number of tokens to sample."
        )
    if selection.weights and (
        selection.domains or selection.level or selection.where or selection.split != "train"
    ):
        raise UserError(
            "weights: cannot be combined with level, domains, where and split. Remove these, as "
            "all training documents are sampled."
        )
    if selection.tokens is not None and selection.tokens < 1:
        raise UserError(f"tokens {selection.tokens}: expected at least 1.")
    if selection.domains and selection.level is None:
        raise UserError(
            f"domains {list(selection.domains)}: level is missing. Give one of the levels "
            f"{list(catalog.levels.granularities)}."
        )
    if selection.level is not None:
        catalog.levels.span(selection.level)
        if not selection.domains:
            raise UserError(
                f"level {selection.level}: domains are missing. Give at least one, or remove the "
                "level to export all documents."
            )
        if wrong := [domain for domain in selection.domains if not 0 <= domain < selection.level]:
            raise UserError(
                f"domain {wrong[0]}: not in level {selection.level}. Expected 0 to "
                f"{selection.level - 1}."
            )


def _log(run: Path | None) -> str | None:
    """Return a hash of a run's weights, which does not depend on the place of its folder."""
    log = None if run is None else run / "weights.parquet"
    return sha256_file(log) if log is not None and log.is_file() else None


def _read(out: Path) -> Exported:
    try:
        return Exported.model_validate_json((out / EXPORT).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{out / EXPORT}: cannot be read ({error}). Give another folder, or remove it."
        ) from error


def _by_query(
    catalog: Catalog, selection: Selection, out: Path, on_documents: OnDocuments | None
) -> dict[str, Any]:
    """Write the documents in the order of the catalog."""
    import duckdb  # noqa: PLC0415

    columns = list(dict.fromkeys((*selection.columns, "tokens")))
    try:
        chosen = catalog.sql("FROM documents")
        if selection.split != "all":
            chosen = chosen.filter(
                duckdb.ColumnExpression("split") == duckdb.ConstantExpression(selection.split)
            )
        if selection.domains and selection.level:
            chosen = chosen.filter(_leaves(catalog.levels.span(selection.level), selection.domains))
        if selection.where:
            chosen = chosen.filter(selection.where)
        [(count,)] = chosen.aggregate("count(*)").fetchall()
        reader = chosen.select(
            *(duckdb.ColumnExpression(name) for name in columns)
        ).to_arrow_reader(1024)
        schema = pa.schema([tables.DOCUMENTS.field(name) for name in columns])
        pieces = (pa.Table.from_batches([batch]).cast(schema) for batch in reader)
        return _written(
            cut(pieces, selection.shard_megabytes * 10**6), selection, out, count, on_documents
        )
    except duckdb.Error as error:
        subject = f"where {selection.where!r}" if selection.where else str(catalog.files.address)
        raise UserError(f"{subject}: {' '.join(str(error).split())}") from error


def _leaves(span: int, domains: Sequence[int]) -> Any:
    import duckdb  # noqa: PLC0415

    leaf = duckdb.ColumnExpression("leaf")
    ranges = [
        (leaf >= duckdb.ConstantExpression(domain * span))
        & (leaf < duckdb.ConstantExpression((domain + 1) * span))
        for domain in domains
    ]
    either = ranges[0]
    for more in ranges[1:]:
        either = either | more
    return either


def _by_weights(
    catalog: Catalog, selection: Selection, out: Path, on_documents: OnDocuments | None
) -> dict[str, Any]:
    run, tokens = Path(selection.weights or ""), selection.tokens or 0
    address = catalog.files.address
    versions = [read_manifest(address, number).fingerprint for number in range(1, catalog.version)]
    if read_run_record(run).catalog not in {catalog.manifest.fingerprint, *versions}:
        raise UserError(
            f"weights {run}: the run was trained on another catalog. Give a run that was "
            f"trained on {address}."
        )
    level, weights = last_mixture(run, catalog.files)
    available = train_tokens(catalog.files, level)
    drawn = sample_documents(catalog.files, level, weights, available, tokens, selection.seed)
    columns = list(dict.fromkeys((*selection.columns, "tokens", "id_int")))
    shards = min(
        _MAXIMUM_SHARDS, max(1, math.ceil(drawn.characters / (selection.shard_megabytes * 10**6)))
    )
    scratch = out / "scratch"
    dealt = shuffled(
        read_rows(catalog.files.layout, drawn.rows, columns), shards, selection.seed, scratch
    )
    written = _written(dealt, selection, out, drawn.documents, on_documents)
    scratch.rmdir()
    return {**written, "level": level, "shares": _shares(weights, drawn)}


def _shares(weights: np.ndarray, drawn: DocumentSample) -> list[DomainShare]:
    return [
        DomainShare(
            domain=domain,
            weight=float(weights[domain]),
            tokens=int(drawn.tokens[domain]),
            exhausted=bool(drawn.exhausted[domain]),
        )
        for domain in np.flatnonzero(weights > 0).tolist()
    ]


def _written(
    shards: Iterator[Iterator[pa.Table]],
    selection: Selection,
    out: Path,
    total: int,
    on_documents: OnDocuments | None,
) -> dict[str, Any]:
    counts: dict[Path, list[int]] = {}
    documents = size = 0
    for path, piece in write_shards(shards, out / DATA, selection.format, list(selection.columns)):
        count = counts.setdefault(path, [0, 0])
        count[0] += piece.num_rows
        count[1] += int(np.sum(piece["tokens"].to_numpy()))
        documents, size = documents + piece.num_rows, size + piece.nbytes
        if on_documents:
            on_documents(documents, total, size)
    if not documents:
        raise UserError(
            "documents: none matches the selection. Count the matching documents with `clustermix "
            "query`, and change the selection."
        )
    made = {
        path.name: ExportedShard(
            documents=n, tokens=tokens, bytes=path.stat().st_size, sha256=sha256_file(path)
        )
        for path, (n, tokens) in counts.items()
    }
    return {
        "documents": documents,
        "tokens": sum(shard.tokens for shard in made.values()),
        "shards": made,
    }
