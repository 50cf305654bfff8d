"""Check that a catalog is what its manifest says, and that its tables and files agree."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.errors import UserError
from data_catalog.format import tables
from data_catalog.format.damage import DamagedFileError, first_line, read_table, reading
from data_catalog.format.files import CatalogFiles, open_files
from data_catalog.format.manifest import (
    Manifest,
    content_fingerprint,
    damaged_files,
    parse_manifest,
    read_manifest,
    read_manifest_text,
    version_manifest,
)
from data_catalog.format.offsets import extents
from data_catalog.format.tokens import map_tokens
from data_catalog.place import Folder
from data_catalog.query.shell_files import shell_faults
from data_catalog.settings import Settings

_SUM_TOLERANCE = 1e-9  # maximum distance of a distribution's sum from 1


class Report(Settings):
    """The result of a check. A catalog without faults is sound."""

    version: int
    """Version of the catalog."""
    files: int
    """Number of files checked."""
    bytes: int
    """Total size of the files."""
    documents: int
    """Number of documents."""
    tokens: int
    """Number of tokens."""
    distributions: int
    """Number of stored distributions, counting each level."""
    left_out: tuple[str, ...] = ()
    """Folders that this copy of the catalog was fetched without."""
    faults: tuple[str, ...]
    """A sentence per fault."""


def check(
    root: Folder, version: int | None = None, on_progress: Callable[[int, int], None] | None = None
) -> Report:
    """Check one version of the catalog at `root`, its newest if `version` is None.

    The check reads every byte. It compares sizes and checksums of all files with the manifest.
    Each file of documents must be sorted by leaf, lie inside its top-level domain and match the
    offsets and its token file. Domains, accounts and manifest must count the same documents and
    tokens. Each distribution must sum to 1, and each target's documents must have their tokens.
    The manifests of all versions up to this one must follow from each other, and `catalog.duckdb`
    must be the one that clustermix wrote. The offsets and the short columns of one file are held in
    memory. The files of a catalog in a store are downloaded, one after the other.

    Args:
        on_progress: Called after each file with the bytes checked and the bytes of all files.

    Raises:
        UserError: There is no catalog, no such version, or its manifest is damaged.
    """
    files = open_files(root, version)
    layout, manifest = files.layout, files.manifest
    if files.store is None:
        bad = damaged_files(files.root, manifest.files, on_progress)
    else:
        bad = files.verified.stored_faults(on_progress)
    faults = [f"{name}: {fault}" for name, fault in bad.items()]
    faults += [*_manifest_faults(files), *(shell_faults(files.root) if files.store is None else ())]
    checks: dict[Path, Callable[[], Iterable[str]]] = {
        layout.offsets: partial(_check_stored, files, bad),
        layout.domains: partial(_check_domains, files),
        layout.accounting: partial(_check_accounting, files),
        layout.distributions: partial(_check_distributions, files),
        **{
            layout.target(name) / "documents.parquet": partial(_check_target, files, name)
            for name in manifest.targets
        },
    }
    for path, find_faults in checks.items():
        name = path.relative_to(files.root).as_posix()
        beside = (name, name.replace("/documents.parquet", "/tokens.arrow"))
        if not bad.keys() & set(beside):
            faults += _sentences(files, beside, find_faults)
    return Report(
        version=manifest.version,
        files=len(manifest.files),
        bytes=sum(file.bytes for file in manifest.files.values()),
        documents=manifest.documents,
        tokens=manifest.tokens,
        distributions=_count_distributions(files),
        left_out=manifest.left_out,
        faults=tuple(dict.fromkeys(faults)),
    )


def _sentences(
    files: CatalogFiles, names: Sequence[str], find_faults: Callable[[], Iterable[str]]
) -> list[str]:
    """Return the faults of the first of some files, which are read together.

    A file that cannot be read is one fault more.
    """
    faults: list[str] = []
    root = files.root
    try:
        if files.store is not None:  # the cache may have lost them
            files.verified.compare(names)
        with reading(root / names[0]):
            faults += find_faults()
    except DamagedFileError as error:
        faults.append(f"{error.path.relative_to(root).as_posix()}: cannot be read ({error.reason})")
    return faults


def _manifest_faults(files: CatalogFiles) -> Iterator[str]:
    """Yield a sentence per manifest that does not belong to the newest version of the catalog."""
    newest = read_manifest(files.address)
    later: Manifest | None = None
    for number in range(newest.version, 0, -1):
        name = version_manifest(number)
        try:
            text = read_manifest_text(files.address, name)
            if text is None:
                yield f"{name}: missing"
                return
            manifest = parse_manifest(text, name)
        except (UserError, OSError) as error:
            yield str(error) if isinstance(error, UserError) else f"{name}: {first_line(error)}"
            return
        if later is None and manifest != newest:
            yield f"{name}: differs from {files.layout.manifest.name}, its copy"
            return
        if manifest.version != number or (later and not _follows(later, manifest)):
            yield f"{name}: is not the manifest of version {number} of this catalog"
            return
        if not manifest.left_out and content_fingerprint(manifest.content()) != (
            manifest.fingerprint
        ):
            yield f"{name}: its fingerprint is not that of its content"
            return
        later = manifest


def _follows(later: Manifest, earlier: Manifest) -> bool:
    """Return whether a version can have been made by an addition to another."""
    return (
        later.parent == earlier.fingerprint
        and later.built_from == earlier.built_from
        and later.warnings[: len(earlier.warnings)] == earlier.warnings
        and later.additions[: len(earlier.additions)] == earlier.additions
    )


def _check_stored(files: CatalogFiles, bad: Mapping[str, str]) -> Iterator[str]:
    """Compare the documents and tokens of every file with the offsets."""
    layout, manifest = files.layout, files.manifest
    offsets = read_table(layout.offsets, tables.OFFSETS)
    rows, tokens = (pc.sum(offsets[name]).as_py() or 0 for name in ("rows", "tokens"))
    if (rows, tokens) != (manifest.documents, manifest.tokens):
        yield (
            f"{_name(files, layout.offsets)}: covers {rows} documents and {tokens} tokens. The "
            f"manifest counts {manifest.documents} documents and {manifest.tokens} tokens"
        )
    left_out = set(manifest.left_out)
    places = (
        offsets.select(["top", "part"])
        .group_by(["top", "part"])
        .aggregate([])
        .sort_by([("top", "ascending"), ("part", "ascending")])
    )
    covered = set()
    for place in places.to_pylist():
        top, part = place["top"], place["part"]
        names = [
            _name(files, path) for path in (layout.documents(top, part), layout.tokens(top, part))
        ]
        covered |= set(names)
        unlisted = [
            name
            for name in names
            if name not in manifest.files and name.split("/")[0] not in left_out
        ]
        if unlisted:
            yield f"{unlisted[0]}: is in the offsets, but not in the manifest"
        elif not (bad.keys() & names or left_out & {"documents", "tokens"}):
            in_file = pc.and_(pc.equal(offsets["top"], top), pc.equal(offsets["part"], part))
            expected = offsets.filter(in_file).sort_by("first_row")
            yield from _sentences(files, names, partial(_check_file, files, expected, top, part))
    for name in sorted(manifest.files):
        if name.startswith(("documents/", "tokens/")) and name not in covered:
            yield f"{name}: is in the manifest, but not in the offsets"


def _check_file(files: CatalogFiles, offsets: pa.Table, top: int, part: int) -> Iterator[str]:
    path, tokens_path = files.layout.documents(top, part), files.layout.tokens(top, part)
    name = _name(files, path)
    table = read_table(path, tables.DOCUMENTS, ["leaf", "split", "tokens"])
    leaf, tokens = table["leaf"].to_numpy(), table["tokens"].to_numpy()
    held_out = pc.equal(table["split"], "heldout").to_numpy()
    span = files.levels.span(files.levels.granularities[0])
    inside = not len(leaf) or (top * span <= leaf[0] and leaf[-1] < (top + 1) * span)
    if not inside or (leaf[1:] < leaf[:-1]).any():
        yield f"{name}: rows are not sorted by leaf inside top-level domain {top}"
    elif not extents(leaf, held_out, tokens, top, part).equals(offsets.combine_chunks()):
        yield f"{name}: leaves, splits or token counts differ from the offsets"
    values, starts = map_tokens(tokens_path)
    if not np.array_equal(np.diff(starts), tokens) or starts[-1] != len(values):
        yield f"{_name(files, tokens_path)}: document lengths differ from those in {name}"


def _check_domains(files: CatalogFiles) -> Iterator[str]:
    name = _name(files, files.layout.domains)
    columns = ["level", "domain", "documents", "tokens"]
    domains = read_table(files.layout.domains, tables.DOMAINS, columns)
    offsets = read_table(files.layout.offsets, tables.OFFSETS, ["leaf", "rows", "tokens"])
    for k in files.levels.granularities:
        of_level = domains.filter(pc.equal(domains["level"], k)).sort_by("domain")
        expected = np.zeros((2, k), np.int64)
        domain_of_row = files.levels.domains(offsets["leaf"].to_numpy(), k)
        for row, column in zip(expected, ("rows", "tokens"), strict=True):
            np.add.at(row, domain_of_row, offsets[column].to_numpy())
        stored = np.stack([of_level["documents"].to_numpy(), of_level["tokens"].to_numpy()])
        if stored.shape != expected.shape:
            yield f"{name}: level {k} has {stored.shape[1]} domains"
        elif (wrong := np.flatnonzero((stored != expected).any(axis=0))).size:
            at = int(wrong[0])
            yield (
                f"{name}: level {k}, domain {at} has {stored[0, at]} documents and "
                f"{stored[1, at]} tokens. The offsets count {expected[0, at]} and "
                f"{expected[1, at]} ({len(wrong)} domains differ)"
            )


def _check_accounting(files: CatalogFiles) -> Iterator[str]:
    name = _name(files, files.layout.accounting)
    sums: dict[str, Counter[str]] = {}
    for row in read_table(files.layout.accounting, tables.ACCOUNTING).to_pylist():
        if row["outcome"] == "noted":  # lines, fields and files that lost no document
            continue
        sign = 1 if row["outcome"] == "read" else -1
        stage = sums.setdefault(row["stage"], Counter())
        for unit in ("rows", "characters", "tokens"):
            stage[unit] += sign * row[unit]
        stored = row["stage"] == "shard" and row["outcome"] == "kept"
        if stored and row["rows"] != files.manifest.documents:
            yield (
                f"{name}: {row['rows']} documents are stored. The manifest counts "
                f"{files.manifest.documents}"
            )
    for where, left in sums.items():
        if lost := ", ".join(f"{n} {unit}" for unit, n in left.items() if n):
            yield f"{name}: {where} read {lost} more than it kept, dropped and failed"


def _check_distributions(files: CatalogFiles) -> Iterator[str]:
    table = read_table(files.layout.distributions, tables.DISTRIBUTIONS)
    groups = table.group_by(["name", "kind", "level"]).aggregate(
        [("weight", "sum"), ("weight", "min"), ("domain", "max"), ("domain", "min")]
    )
    name = _name(files, files.layout.distributions)
    for row in groups.to_pylist():
        which = f"{name}: {row['name']} ({row['kind']}, level {row['level']})"
        if abs(row["weight_sum"] - 1) > _SUM_TOLERANCE:
            yield f"{which} sums to {row['weight_sum']:.9f}, expected 1"
        if row["weight_min"] <= 0 or row["domain_min"] < 0 or row["domain_max"] >= row["level"]:
            yield f"{which} has a weight that is not positive, or a domain that its level lacks"


def _check_target(files: CatalogFiles, target: str) -> Iterator[str]:
    folder = files.layout.target(target)
    documents = read_table(folder / "documents.parquet", tables.TARGET, ["tokens"])
    tokens = documents["tokens"].to_numpy()
    _, starts = map_tokens(folder / "tokens.arrow")
    if not np.array_equal(np.diff(starts), tokens):
        yield f"{_name(files, folder)}: tokens.arrow and documents.parquet have other documents"


def _count_distributions(files: CatalogFiles) -> int:
    columns = ["name", "kind", "level"]
    try:
        table = read_table(files.layout.distributions, tables.DISTRIBUTIONS, columns)
        return table.group_by(columns).aggregate([]).num_rows
    except DamagedFileError:
        return 0  # reported as a fault


def _name(files: CatalogFiles, path: Path) -> str:
    """Return a path below the catalog, as the manifest names it."""
    return path.relative_to(files.root).as_posix()
