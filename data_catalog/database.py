"""DuckDB over a catalog's files: views and macros only, so that the database can be thrown away and made again at any time."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog.errors import UserError
from data_catalog.layout import Layout, Levels
from data_catalog.manifest import is_inside, read_manifest, replacing
from data_catalog.offsets import Offsets, read_offsets
from data_catalog.read import read_domain
from data_catalog.runs import create_views, find_runs, macros
from data_catalog.views import FILES, derived

if TYPE_CHECKING:
    import duckdb  # imported by the functions that need it: the trainer does without
    import pyarrow as pa

SETTINGS: dict[str, str | bool | int | float | list[str]] = {  # nothing is fetched
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


@dataclass(frozen=True)
class Catalog:
    """An open, read-only catalog."""

    root: Path
    manifest: dict[str, Any]
    connection: duckdb.DuckDBPyConnection

    @property
    def levels(self) -> Levels:
        return Levels(tuple(self.manifest["granularities"]))

    @property
    def version(self) -> int:
        return int(self.manifest["version"])

    def sql(self, query: str) -> duckdb.DuckDBPyRelation:
        """One SELECT over the views and macros; `.df()`, `.fetchall()`, `.to_arrow_table()` and printing run it. See `table` for one step.

        Raises:
            UserError: the query is not valid, names what is not there, or is not a query.
        """
        import duckdb  # noqa: PLC0415

        try:
            kinds = [statement.type.name for statement in self.connection.extract_statements(query)]
            if len(kinds) != 1 or kinds[0] not in {"SELECT", "EXPLAIN"}:
                raise UserError(f"query: expected one SELECT, found {', '.join(kinds) or 'nothing'}; a catalog is read-only")
            return self.connection.sql(query)
        except duckdb.Error as error:
            raise UserError(f"query: {error}") from error

    def table(self, query: str) -> pa.Table:
        """The whole answer to one SELECT.

        Raises:
            UserError: as `sql`, and where running it fails: a domain that a macro is asked for is not there, or memory is too small.
        """
        import duckdb  # noqa: PLC0415

        try:
            return self.sql(query).to_arrow_table()
        except duckdb.Error as error:
            raise UserError(f"query: {error}") from error

    def domain(self, level: int, domain: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The documents of one domain; see `data_catalog.read.read_domain`. Takes milliseconds, whatever the size of the catalog."""
        return read_domain(Layout(self.root, self.version), self._offsets, self.levels, level, domain, columns)

    @cached_property
    def _offsets(self) -> Offsets:
        return read_offsets(Layout(self.root, self.version).offsets)


def open(root: str | Path, version: int | None = None, runs: Sequence[str | Path] = ()) -> Catalog:
    """Open the catalog at `root`. Queries can read files below `root` and in the folders of `runs`, and nothing else.

    Args:
        version: None: the newest.
        runs: folders of runs, or globs of them: the views `runs`, `weights`, `scores` and `metrics` are of these.

    Raises:
        UserError: there is no finished catalog at `root` or no such version, or a file of it is missing or damaged; or `runs` are none.
    """
    import duckdb  # noqa: PLC0415

    root = Path(root).resolve()
    folders = find_runs(runs)
    manifest = read_manifest(root, version)
    connection = duckdb.connect(config=SETTINGS)
    connection.execute("SET TimeZone = 'UTC'")
    views = view_files(manifest)
    for view, names in views.items():
        if outside := [name for name in names if not is_inside(root, name)]:
            raise UserError(f"{root}: {outside[0]} lies outside the catalog; do not use this catalog")
        try:
            files = [f"{glob.escape(str(root))}/{glob.escape(name)}" for name in names]
            connection.read_parquet(files, hive_partitioning=False).create_view(view)
        except duckdb.Error as error:
            raise UserError(f"{root}: {view} cannot be read ({error}); `clustermix verify` tells which files are damaged") from error
    _derive(connection, views, manifest)
    create_views(connection, folders, manifest["fingerprint"])
    # Paths are checked as they are written in the view, where special characters are escaped.
    readable = [written for folder in (root, *folders) for written in (str(folder), glob.escape(str(folder)))]
    connection.execute("SET allowed_directories = $readable", {"readable": readable})
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return Catalog(root, manifest, connection)


def _derive(connection: duckdb.DuckDBPyConnection, views: Mapping[str, object], manifest: Mapping[str, Any]) -> None:
    for statement in (*derived(views.keys(), Levels(tuple(manifest["granularities"]))), *macros()):
        connection.execute(statement)


def view_files(manifest: Mapping[str, Any]) -> dict[str, list[str]]:
    """The files of each view over files, below the catalog: an older version's views must not see newer files."""
    found = {view: sorted(name for name in manifest["files"] if fnmatchcase(name, pattern)) for view, pattern in FILES.items()}
    return {view: names for view, names in found.items() if names}


def write_database(root: Path, manifest: Mapping[str, Any]) -> None:
    """Write `catalog.duckdb` with the views and macros of one version, for the DuckDB shell started in the catalog's folder."""
    import duckdb  # noqa: PLC0415

    root = root.resolve()
    with replacing(Layout(root).database) as temporary:
        connection = duckdb.connect(str(temporary), config=SETTINGS)
        try:
            # A view is checked when it is made: find its files from here, while it stores the path below the catalog.
            connection.execute("SET file_search_path = $root", {"root": str(root)})
            views = view_files(manifest)
            for view, names in views.items():
                connection.read_parquet([glob.escape(name) for name in names], hive_partitioning=False).create_view(view)
            _derive(connection, views, manifest)
        finally:
            connection.close()
