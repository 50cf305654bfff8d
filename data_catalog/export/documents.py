"""Documents out of a catalog, as text for other trainers: of some domains, of a condition, or in the proportions that a run learned."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from data_catalog.errors import UserError, suggestion
from data_catalog.export.run_mixture import last_mixture, train_tokens
from data_catalog.export.sampling import Drawn, draw, read_rows
from data_catalog.export.shards import Format, cut, shuffled, write_shards
from data_catalog.format import tables
from data_catalog.format.manifest import (
    fingerprint,
    read_manifest,
    replacing,
    sha256_file,
    write_json,
)
from data_catalog.format.run_record import read_run_record
from data_catalog.query.database import Catalog, open
from data_catalog.settings import Settings

EXPORT = "export.json"
DATA = "data"  # folder of the shards: readers of folders find nothing else in it
MOST_SHARDS = 4096  # files that are open at once while documents are dealt out

OnDocuments = Callable[
    [int, int, int], None
]  # documents done, documents in all, bytes of text so far


class Selection(Settings):
    """Which documents, as `export.json` keeps it."""

    level: int | None = None
    """Level of `domains`."""
    domains: tuple[int, ...] = ()
    """Domains to export. If empty, all."""
    where: str | None = None
    """SQL condition over the columns of the view `documents`."""
    weights: str | None = None
    """Folder of the run whose weights are used."""
    tokens: int | None = None
    """Number of tokens to sample by weights."""
    seed: int = 0
    """Seed of the sample and of its order."""
    split: Literal["train", "heldout", "all"] = "train"
    """Split to export."""
    columns: tuple[str, ...] = ("doc_id", "text")
    """Columns of the view `documents`."""
    format: Format = "jsonl"
    """Format of the shards."""
    shard_megabytes: int = 256
    """Approximate size of a shard, in megabytes of documents in memory."""


class Shard(Settings):
    documents: int
    """Number of documents."""
    tokens: int
    """Number of tokens."""
    bytes: int
    """Size of the file."""
    sha256: str
    """SHA-256 of the file."""


class Share(Settings):
    """What a domain gave to an export by weights."""

    domain: int
    """Number of the domain."""
    weight: float
    """Requested share of the tokens."""
    tokens: int
    """Number of tokens in the export."""
    exhausted: bool
    """True if the export contains all training documents of the domain and its weight requested
    more. Other domains supply the rest."""


class Exported(Settings):
    """What an export holds: `export.json` in its folder, written last."""

    catalog: str
    """Fingerprint of the catalog."""
    version: int
    """Version of the catalog."""
    selection: Selection
    """Selected documents."""
    fingerprint: str
    """Hash of the catalog, version and selection. An export with the same hash is not repeated."""
    documents: int
    """Number of documents."""
    tokens: int
    """Number of tokens."""
    shards: dict[str, Shard]
    """Files by name."""
    level: int | None = None
    """Level of `shares`."""
    shares: tuple[Share, ...] = ()
    """Contribution per domain, for an export by weights."""


def export_documents(
    root: Path,
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
    """Write documents of the catalog at `root` to `out/data/shard_00000.jsonl` (or `.parquet`) and so on, and `out/export.json`.

    The folder appears whole or not at all; the same export is not made twice, another one in its place is refused. Memory is bounded
    by a row group of the catalog, or by a shard where documents are drawn by weights.

    Args:
        level, domains: only these domains of this level; all documents if not given.
        where: an SQL condition over the columns of the view `documents`.
        weights: a finished run's folder: training documents are drawn without replacement in the proportions of its last weights over
            domains, and in random order, until there are `tokens` tokens, give or take a document. What an exhausted domain lacks the
            others give. Not together with `domains` and `where`.
        seed: of the draw and of the order.
        split: `train` leaves out the documents that the catalog holds out for evaluation.
        columns: of the view `documents`.
        shard_megabytes: of documents in memory, about; compression makes Parquet files smaller.

    Raises:
        UserError: what is asked for does not fit the catalog or each other, no document matches, or `out` holds something else.
    """
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
        found = _read(out)
        if found.fingerprint == key:
            return found
        raise UserError(f"{out}: another export is there; give another folder, or remove it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is not empty; give a new folder")
    identity: dict[str, Any] = {
        "catalog": catalog.manifest.fingerprint,
        "version": catalog.version,
        "selection": selection,
        "fingerprint": key,
    }
    with replacing(out) as temporary:
        temporary.mkdir()
        make = _by_weights if selection.weights else _by_query
        exported = Exported(**identity, **make(catalog, selection, temporary, on_documents))
        write_json(temporary / EXPORT, exported)
    return exported


def _check(catalog: Catalog, selection: Selection) -> None:
    if unknown := sorted(set(selection.columns) - set(tables.DOCUMENTS.names)):
        raise UserError(
            f"column {unknown[0]}: {suggestion(unknown[0], tables.DOCUMENTS.names, 'documents have')}"
        )
    if not selection.columns or len(set(selection.columns)) < len(selection.columns):
        raise UserError(
            f"columns {', '.join(selection.columns) or 'none'}: give each one once, and at least one"
        )
    if selection.shard_megabytes < 1:
        raise UserError(f"shard_megabytes {selection.shard_megabytes}: expected at least 1")
    catalog.files.require("documents")
    if (selection.weights is None) != (selection.tokens is None):
        raise UserError(
            "weights and tokens are given together: a run's folder, and how many tokens to draw by its weights"
        )
    if selection.weights and (
        selection.domains or selection.level or selection.where or selection.split != "train"
    ):
        raise UserError(
            "weights draw from all training documents; leave out level, domains, where and split"
        )
    if selection.tokens is not None and selection.tokens < 1:
        raise UserError(f"tokens {selection.tokens}: expected at least 1")
    if selection.domains and selection.level is None:
        raise UserError(
            f"domains {list(selection.domains)}: of which level? This catalog has levels {list(catalog.levels.granularities)}"
        )
    if selection.level is not None:
        catalog.levels.span(selection.level)
        if not selection.domains:
            raise UserError(
                f"level {selection.level}: of which domains? Give at least one, or leave out the level for all documents"
            )
        if wrong := [domain for domain in selection.domains if not 0 <= domain < selection.level]:
            raise UserError(
                f"domain {wrong[0]}: level {selection.level} has domains 0 to {selection.level - 1}"
            )


def _log(run: Path | None) -> str | None:
    """What tells a run's weights apart, wherever its folder lies."""
    log = None if run is None else run / "weights.parquet"
    return sha256_file(log) if log is not None and log.is_file() else None


def _read(out: Path) -> Exported:
    try:
        return Exported.model_validate_json((out / EXPORT).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{out / EXPORT}: cannot be read ({error}); give another folder, or remove it"
        ) from error


def _by_query(
    catalog: Catalog, selection: Selection, out: Path, on_documents: OnDocuments | None
) -> dict[str, Any]:
    """In the catalog's order, as DuckDB streams it."""
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
        asked = f"where {selection.where!r}" if selection.where else str(catalog.root)
        raise UserError(f"{asked}: {' '.join(str(error).split())}") from error


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
    versions = [
        read_manifest(catalog.root, number).fingerprint for number in range(1, catalog.version)
    ]
    if read_run_record(run).catalog not in {catalog.manifest.fingerprint, *versions}:
        raise UserError(
            f"weights {run}: trained on another catalog than {catalog.root}, whose domains are others; name that one's runs"
        )
    level, weights = last_mixture(run, catalog.files)
    available = train_tokens(catalog.files, level)
    drawn = draw(
        catalog.files.layout, catalog.levels, level, weights, available, tokens, selection.seed
    )
    columns = list(dict.fromkeys((*selection.columns, "tokens", "id_int")))
    shards = min(
        MOST_SHARDS, max(1, math.ceil(drawn.characters / (selection.shard_megabytes * 10**6)))
    )
    scratch = out / "scratch"
    dealt = shuffled(
        read_rows(catalog.files.layout, drawn.rows, columns), shards, selection.seed, scratch
    )
    written = _written(dealt, selection, out, drawn.documents, on_documents)
    scratch.rmdir()
    return {**written, "level": level, "shares": _shares(weights, drawn)}


def _shares(weights: np.ndarray, drawn: Drawn) -> list[Share]:
    return [
        Share(
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
            "no document matches; ask `clustermix query` how many there are with your condition, and change it"
        )
    made = {
        path.name: Shard(
            documents=n, tokens=tokens, bytes=path.stat().st_size, sha256=sha256_file(path)
        )
        for path, (n, tokens) in counts.items()
    }
    return {
        "documents": documents,
        "tokens": sum(shard.tokens for shard in made.values()),
        "shards": made,
    }
