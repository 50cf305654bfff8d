"""Check that a catalog is what its manifest says, and that its tables and files agree with each other."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.layout import Layout, Levels
from data_catalog.format.manifest import damaged, read_manifest
from data_catalog.format.offsets import extents
from data_catalog.format.tokens import map_tokens
from data_catalog.settings import Settings

_SUM = 1e-9  # how far from 1 a distribution may add up


class Report(Settings):
    """What was looked at, and a sentence for each fault; a catalog without any is sound."""

    version: int
    files: int
    bytes: int
    documents: int
    tokens: int
    distributions: int
    left_out: tuple[str, ...] = ()  # parts of the catalog that this copy was fetched without
    faults: tuple[str, ...]


def check(
    root: Path, version: int | None = None, on_progress: Callable[[int, int], None] | None = None
) -> Report:
    """Check one version of the catalog at `root`; None: the newest. Reads every byte; holds the offsets and one file's short columns.

    Sizes and checksums of all files; of each file of documents, that it is sorted, inside its top-level domain, as long as the
    offsets say and where they say, and that the token file has the same documents; that domains, accounts and manifest count the
    same documents and tokens; that each distribution sums to 1; that each target's documents have their tokens.

    Args:
        on_progress: as of `data_catalog.format.manifest.damaged`.

    Raises:
        UserError: there is no catalog, or no such version.
    """
    manifest = read_manifest(root, version)
    layout = Layout(root, int(manifest["version"]))
    bad = damaged(root, manifest, on_progress)
    faults = [f"{name}: {fault}" for name, fault in bad.items()]
    looks: dict[Path, Callable[[], Iterable[str]]] = {
        layout.offsets: lambda: _stored(layout, manifest, bad),
        layout.domains: lambda: _domains(layout),
        layout.accounting: lambda: _accounting(layout, manifest),
        layout.distributions: lambda: _distributions(layout),
        **{
            layout.target(name): lambda name=name: _target(layout, name)  # type: ignore[misc]
            for name in manifest["targets"]
        },
    }
    for place, look in looks.items():
        name = place.relative_to(root).as_posix()
        if not any(known.startswith(name) for known in bad):
            faults += _sentences(name, look)
    return Report(
        version=manifest["version"],
        files=len(manifest["files"]),
        bytes=sum(file["bytes"] for file in manifest["files"].values()),
        documents=manifest["documents"],
        tokens=manifest["tokens"],
        distributions=_count(layout),
        left_out=tuple(manifest.get("left_out", ())),
        faults=tuple(faults),
    )


def _sentences(name: str, look: Callable[[], Iterable[str]]) -> list[str]:
    """What `look` finds; damage that it stumbles over is one sentence more."""
    found: list[str] = []
    try:
        found += look()
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        found.append(f"{name}: cannot be read ({str(error).splitlines()[0]})")
    return found


def _stored(layout: Layout, manifest: Mapping[str, Any], bad: Mapping[str, str]) -> Iterator[str]:
    """The documents and tokens of every file, against the offsets."""
    offsets = pq.read_table(layout.offsets, schema=tables.OFFSETS)
    rows, tokens = (pc.sum(offsets[name]).as_py() or 0 for name in ("rows", "tokens"))
    if (rows, tokens) != (manifest["documents"], manifest["tokens"]):
        counted = f"{manifest['documents']} documents, {manifest['tokens']} tokens"
        yield f"{layout.offsets.relative_to(layout.root)}: reaches {rows} documents, {tokens} tokens; the manifest counts {counted}"
    levels, left_out = Levels(tuple(manifest["granularities"])), set(manifest.get("left_out", ()))
    places = (
        offsets.select(["top", "part"])
        .group_by(["top", "part"])
        .aggregate([])
        .sort_by([("top", "ascending"), ("part", "ascending")])
    )
    reached = set()
    for place in places.to_pylist():
        top, part = place["top"], place["part"]
        names = [
            path.relative_to(layout.root).as_posix()
            for path in (layout.documents(top, part), layout.tokens(top, part))
        ]
        reached |= set(names)
        if unknown := [
            name
            for name in names
            if name not in manifest["files"] and name.split("/")[0] not in left_out
        ]:
            yield f"{unknown[0]}: in the offsets, but not in the manifest"
        elif not (bad.keys() & names or left_out & {"documents", "tokens"}):
            mine = offsets.filter(
                pc.and_(pc.equal(offsets["top"], top), pc.equal(offsets["part"], part))
            ).sort_by("first_row")
            yield from _sentences(names[0], lambda: _file(layout, levels, mine, top, part))  # noqa: B023 - called at once
    for name in sorted(manifest["files"]):
        if name.startswith(("documents/", "tokens/")) and name not in reached:
            yield f"{name}: in the manifest, but no offset reaches it"


def _file(layout: Layout, levels: Levels, offsets: pa.Table, top: int, part: int) -> Iterator[str]:
    path = layout.documents(top, part)
    name = path.relative_to(layout.root).as_posix()
    table = pq.read_table(path, columns=["leaf", "split", "tokens"], partitioning=None)
    leaf, tokens = table["leaf"].to_numpy(), table["tokens"].to_numpy()
    span = levels.span(levels.granularities[0])
    if len(leaf) and (
        leaf[0] < top * span or leaf[-1] >= (top + 1) * span or (leaf[1:] < leaf[:-1]).any()
    ):
        yield f"{name}: its rows are not sorted by leaf inside top-level domain {top}"
    elif not extents(
        leaf, pc.equal(table["split"], "heldout").to_numpy(), tokens, top, part
    ).equals(offsets.combine_chunks()):
        yield f"{name}: its leaves, splits or token counts are not where the offsets say"
    values, starts = map_tokens(layout.tokens(top, part))
    if not np.array_equal(np.diff(starts), tokens) or starts[-1] != len(values):
        yield f"{layout.tokens(top, part).relative_to(layout.root)}: its documents do not have the lengths that {name} says"


def _domains(layout: Layout) -> Iterator[str]:
    domains = pq.read_table(layout.domains, columns=["level", "domain", "documents", "tokens"])
    offsets = pq.read_table(layout.offsets, columns=["leaf", "rows", "tokens"])
    levels = Levels(tuple(read_manifest(layout.root, layout.version)["granularities"]))
    for k in levels.granularities:
        here = domains.filter(pc.equal(domains["level"], k)).sort_by("domain")
        expected = np.zeros((2, k), np.int64)
        for row, column in zip(expected, ("rows", "tokens"), strict=True):
            np.add.at(
                row, levels.domains(offsets["leaf"].to_numpy(), k), offsets[column].to_numpy()
            )
        found = np.stack([here["documents"].to_numpy(), here["tokens"].to_numpy()])
        if found.shape != expected.shape:
            yield f"{layout.domains.relative_to(layout.root)}: level {k} has {found.shape[1]} domains"
        elif (wrong := np.flatnonzero((found != expected).any(axis=0))).size:
            at = int(wrong[0])
            yield (
                f"{layout.domains.relative_to(layout.root)}: level {k}, domain {at}: {found[0, at]} documents, {found[1, at]} tokens; "
                f"the offsets reach {expected[0, at]} and {expected[1, at]} ({len(wrong)} domains differ)"
            )


def _accounting(layout: Layout, manifest: Mapping[str, Any]) -> Iterator[str]:
    name = layout.accounting.relative_to(layout.root)
    sums: dict[str, Counter[str]] = {}
    for row in pq.read_table(layout.accounting).to_pylist():
        sign = 1 if row["outcome"] == "read" else -1
        stage = sums.setdefault(row["stage"], Counter())
        for unit in ("rows", "characters", "tokens"):
            stage[unit] += sign * row[unit]
        if (
            row["stage"] == "shard"
            and row["outcome"] == "kept"
            and row["rows"] != manifest["documents"]
        ):
            yield f"{name}: {row['rows']} documents stored, the manifest counts {manifest['documents']}"
    for where, left in sums.items():
        if lost := ", ".join(f"{n} {unit}" for unit, n in left.items() if n):
            yield f"{name}: {where} read {lost} more than it kept, dropped and failed"


def _distributions(layout: Layout) -> Iterator[str]:
    table = pq.read_table(layout.distributions, schema=tables.DISTRIBUTIONS)
    groups = table.group_by(["name", "kind", "level"]).aggregate(
        [("weight", "sum"), ("weight", "min"), ("domain", "max"), ("domain", "min")]
    )
    name = layout.distributions.relative_to(layout.root)
    for row in groups.to_pylist():
        which = f"{name}: {row['name']} ({row['kind']}, level {row['level']})"
        if abs(row["weight_sum"] - 1) > _SUM:
            yield f"{which} sums to {row['weight_sum']:.9f}, expected 1"
        if row["weight_min"] <= 0 or row["domain_min"] < 0 or row["domain_max"] >= row["level"]:
            yield f"{which} has a weight that is not positive, or a domain that its level lacks"


def _target(layout: Layout, target: str) -> Iterator[str]:
    folder = layout.target(target)
    tokens = pq.read_table(folder / "documents.parquet", columns=["tokens"])["tokens"].to_numpy()
    _, starts = map_tokens(folder / "tokens.arrow")
    if not np.array_equal(np.diff(starts), tokens):
        yield f"{folder.relative_to(layout.root)}: tokens.arrow does not have the documents of documents.parquet"


def _count(layout: Layout) -> int:
    try:
        return (
            pq.read_table(layout.distributions, columns=["name", "kind", "level"])
            .group_by(["name", "kind", "level"])
            .aggregate([])
            .num_rows
        )
    except (pa.ArrowException, OSError):
        return 0  # said among the faults
