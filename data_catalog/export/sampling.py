"""Sample documents with given weights per domain, without replacement.

The sample is a function of the ids of the documents and of a seed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int, Integer, UInt64

from data_catalog.format import tables
from data_catalog.format.damage import read_table, reading
from data_catalog.format.files import CatalogFiles
from data_catalog.format.layout import Layout, Levels
from data_catalog.format.offsets import read_offsets_table

DocumentFile = tuple[int, int]
"""Top-level domain and part of a file of documents."""

# Purposes of pseudo-random numbers.
ORDER_IN_DOMAIN, LAST_DOCUMENT, SHARD_NUMBER, ORDER_IN_SHARD = range(4)


@dataclass(frozen=True)
class DocumentSample:
    """A sample of documents."""

    rows: Mapping[DocumentFile, Integer[np.ndarray, " _n"]]
    """Sampled rows per file, ascending."""
    tokens: Int[np.ndarray, " domains"]
    """Sampled tokens per domain."""
    documents: int
    characters: int
    exhausted: Bool[np.ndarray, " domains"]
    """True if all documents of a domain are in the sample and its weight requested more."""


def keyed(ids: UInt64[np.ndarray, " n"], seed: int, purpose: int) -> UInt64[np.ndarray, " n"]:
    """Return a uniform pseudo-random number per id.

    It is computed with the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
    """
    x = ids.astype(np.uint64) + np.uint64((seed * 4 + purpose + 1) * 0x9E3779B97F4A7C15 % 2**64)
    for _ in range(2):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return x


def share_out(
    weights: Float[np.ndarray, " domains"], available: Int[np.ndarray, " domains"], tokens: int
) -> tuple[Float[np.ndarray, " domains"], Bool[np.ndarray, " domains"]]:
    """Return the number of tokens per domain, and a mask of the exhausted domains.

    Other domains supply the tokens that an exhausted domain lacks, in proportion to their weights.
    """
    quota, open_, left = np.zeros(len(weights)), weights > 0, float(tokens)
    while open_.any():
        share = np.where(open_, left * weights / weights[open_].sum(), 0.0)
        full = open_ & (share > available)
        quota = np.where(open_, share, quota)
        if not full.any():
            break
        quota[full] = available[full]
        left -= float(available[full].sum())
        open_ = open_ & ~full
    return quota, (weights > 0) & (quota >= available)


def take(
    ids: UInt64[np.ndarray, " n"],
    tokens: Int[np.ndarray, " n"],
    quota: float,
    owed: float,
    seed: int,
) -> tuple[Int[np.ndarray, " taken"], float]:
    """Select documents of one domain in random order until the quota is reached.

    The document that exceeds the quota is selected with a probability equal to its missing part.
    This way, domains whose quota is smaller than a document contribute their share on average, and
    long documents are not skipped.

    Args:
        ids: Identifiers of the documents.
        tokens: Number of tokens per document.
        quota: Number of tokens to select.
        owed: Number of tokens that earlier domains lack.
        seed: Seed of the order.

    Returns:
        Positions of the selected documents, and the number of tokens that are owed after them.
    """
    order = np.argsort(keyed(ids, seed, ORDER_IN_DOMAIN), kind="stable")
    ends = np.cumsum(tokens[order])
    wanted = quota + owed
    count = int(np.searchsorted(ends, wanted, side="right"))
    before = float(ends[count - 1]) if count else 0.0
    if count < len(order):
        last = order[count]
        chance = float(keyed(ids[last : last + 1], seed, LAST_DOCUMENT)[0]) / 2**64
        if chance * float(tokens[last]) < wanted - before:
            count, before = count + 1, float(ends[count])
    return order[:count], wanted - before


def sample_documents(
    files: CatalogFiles,
    level: int,
    weights: Float[np.ndarray, " domains"],
    available: Int[np.ndarray, " domains"],
    tokens: int,
    seed: int,
) -> DocumentSample:
    """Sample training documents with about `tokens` tokens in total.

    The error is less than one document, unless all domains with weight are exhausted. The short
    columns of one top-level domain and four bytes per sampled document are held in memory.

    Args:
        files: The catalog.
        level: Level of the weights.
        weights: Share of the tokens per domain. They sum to 1.
        available: Number of training tokens per domain.
        tokens: Number of tokens to sample.
        seed: Seed of the sample.
    """
    layout, levels = files.layout, files.levels
    quota, exhausted = share_out(weights, available, tokens)
    rows: dict[DocumentFile, list[Integer[np.ndarray, " _n"]]] = {}
    drawn, documents, characters, owed = np.zeros(level, np.int64), 0, 0, 0.0
    inside = level // levels.granularities[0]
    for top, parts in _places(files).items():
        if not quota[top * inside : (top + 1) * inside].any():
            continue
        short = _short_columns(layout, levels, level, top, parts)
        for domain, members in _groups(short["domain"]):
            if not quota[domain]:
                continue
            sizes = short["tokens"][members]
            if exhausted[domain]:
                taken = members
            else:
                chosen, owed = take(
                    short["id_int"][members], sizes, float(quota[domain]), owed, seed
                )
                taken = members[chosen]
            drawn[domain] = int(short["tokens"][taken].sum())
            documents += len(taken)
            characters += int(short["characters"][taken].sum())
            for part in parts:
                of_part = taken[short["part"][taken] == part]
                rows.setdefault((top, part), []).append(short["row"][of_part].astype(np.uint32))
    return DocumentSample(
        {place: np.sort(np.concatenate(pieces)) for place, pieces in rows.items()},
        drawn,
        documents,
        characters,
        exhausted,
    )


def read_rows(
    layout: Layout, rows: Mapping[DocumentFile, Integer[np.ndarray, " _n"]], columns: list[str]
) -> Iterator[pa.Table]:
    """Yield these rows of the files of documents, one row group at a time."""
    for place, sampled in rows.items():
        path = layout.documents(*place)
        with reading(path):
            file = pq.ParquetFile(path, memory_map=True)
        with file:
            first = 0
            for group in range(file.num_row_groups):
                end = first + file.metadata.row_group(group).num_rows
                of_group = sampled[slice(*np.searchsorted(sampled, [first, end]))]
                if len(of_group):
                    with reading(path):
                        table = file.read_row_group(group, columns=columns).select(columns)
                        table = table.take(of_group.astype(np.int64) - first)
                    yield table
                first = end


def _places(files: CatalogFiles) -> dict[int, list[int]]:
    """Return the parts of each top-level domain, in order."""
    columns = ["top", "part"]
    pairs = read_offsets_table(files, columns).group_by(columns).aggregate([]).to_pylist()
    places: dict[int, list[int]] = {}
    for place in sorted((row["top"], row["part"]) for row in pairs):
        places.setdefault(place[0], []).append(place[1])
    return places


def _short_columns(
    layout: Layout, levels: Levels, level: int, top: int, parts: list[int]
) -> dict[str, np.ndarray]:
    """Return the numeric columns of a top-level domain's training documents."""
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("domain", "id_int", "tokens", "characters", "part", "row")
    }
    for part in parts:
        table = read_table(
            layout.documents(top, part),
            tables.DOCUMENTS,
            ["leaf", "split", "id_int", "tokens", "characters"],
        )
        train = np.flatnonzero(pc.equal(table["split"], "train").to_numpy())
        columns["domain"].append(
            levels.domains(table["leaf"].to_numpy()[train].astype(np.int64), level)
        )
        for name in ("id_int", "tokens", "characters"):
            columns[name].append(table[name].to_numpy()[train])
        columns["part"].append(np.full(len(train), part))
        columns["row"].append(train)
    return {name: np.concatenate(values) for name, values in columns.items()}


def _groups(domains: Int[np.ndarray, " n"]) -> Iterator[tuple[int, Int[np.ndarray, " m"]]]:
    """Yield each domain with the positions of its documents."""
    order = np.argsort(domains, kind="stable")
    starts = (
        np.flatnonzero(np.r_[True, np.diff(domains[order]) != 0])
        if len(order)
        else np.empty(0, np.int64)
    )
    for start, end in zip(starts, np.r_[starts[1:], len(order)], strict=True):
        yield int(domains[order[start]]), order[start:end]
