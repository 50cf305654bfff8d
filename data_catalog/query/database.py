"""DuckDB over a catalog's files: views and macros only, so that the database can be thrown away and made again at any time."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog.errors import UserError
from data_catalog.format.files import CatalogFiles, open_files
from data_catalog.format.layout import Layout, Levels
from data_catalog.format.manifest import Manifest, is_inside, read_manifest, replacing
from data_catalog.format.offsets import Offsets, read_offsets
from data_catalog.query.notebook import Views, describe
from data_catalog.query.read_domain import read_domain
from data_catalog.query.run_views import VIEWS as RUN_VIEWS
from data_catalog.query.run_views import create_views, find_runs, macros
from data_catalog.query.views import DERIVED, FILES, derived

if TYPE_CHECKING:
    import duckdb  # imported by the functions that need it: the trainer does without
    import pyarrow as pa

    from data_catalog.plot import Plots

SETTINGS: dict[str, str | bool | int | float | list[str]] = {  # nothing is fetched
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


@dataclass(frozen=True)
class Catalog:
    """An open, read-only catalog."""

    files: CatalogFiles
    connection: duckdb.DuckDBPyConnection

    @property
    def root(self) -> Path:
        """The folder of the catalog, absolute."""
        return self.files.root

    @property
    def manifest(self) -> Manifest:
        """The contents of the version's `catalog.json`."""
        return self.files.manifest

    @property
    def levels(self) -> Levels:
        """The levels of the catalog's tree."""
        return self.files.levels

    @property
    def version(self) -> int:
        """The number of the version, from 1."""
        return self.files.version

    def __repr__(self) -> str:
        levels = ", ".join(f"{k:,}" for k in self.levels.granularities)
        return f"Catalog({str(self.root)!r}, version {self.version}, domains at {levels})"

    def _repr_html_(self) -> str:
        return describe(self)

    @cached_property
    def views(self) -> Views:
        """The views by name: `catalog.views.domains` is `catalog.sql("FROM domains")`, and `list(catalog.views)` their names."""
        return Views(self)

    @cached_property
    def plot(self) -> Plots:
        """Figures: `catalog.plot.treemap()`. They need plotly, of the extra `notebook`."""
        from data_catalog.plot import Plots  # noqa: PLC0415

        return Plots(self)

    def sql(
        self, query: str, parameters: Mapping[str, Any] | None = None
    ) -> duckdb.DuckDBPyRelation:
        """One SELECT over the views and macros. `.df()` (pandas), `.pl()` (polars), `.to_arrow_table()`, `.fetchall()` and printing run it.

        Args:
            parameters: values of what stands as $NAME in the query. Text of others belongs here, never in the query.

        Raises:
            UserError: the query is not valid, names what is not there, or is not a query.
        """
        import duckdb  # noqa: PLC0415

        try:
            kinds = [statement.type.name for statement in self.connection.extract_statements(query)]
            if len(kinds) != 1 or kinds[0] not in {"SELECT", "EXPLAIN"}:
                raise UserError(
                    f"query: expected one SELECT, found {', '.join(kinds) or 'nothing'}; a catalog is read-only"
                )
            return (
                self.connection.sql(query, params=dict(parameters))
                if parameters
                else self.connection.sql(query)
            )
        except duckdb.Error as error:
            raise UserError(_sentence(error, self.manifest)) from error

    def table(self, query: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """The whole answer to one SELECT, as an Arrow table; `parameters` as in `sql`.

        Raises:
            UserError: as `sql`, and where running it fails: a domain that a macro is asked for is not there, or memory is too small.
        """
        import duckdb  # noqa: PLC0415

        try:
            return self.sql(query, parameters).to_arrow_table()
        except duckdb.Error as error:
            raise UserError(_sentence(error, self.manifest)) from error
        except RuntimeError as error:
            if "interrupted" in str(error):  # what DuckDB makes of Ctrl-C
                raise KeyboardInterrupt from error
            raise

    def domain(self, level: int, domain: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The documents of one domain of a level, by leaf, training ones before held-out ones. Milliseconds, whatever the catalog's size.

        Args:
            columns: of the view `documents`; None: all.

        Raises:
            UserError: there is no such level, domain or column, or a file is damaged.
        """
        self.files.require("documents")
        return read_domain(self.files, self._offsets, level, domain, columns)

    @cached_property
    def _offsets(self) -> Offsets:
        return read_offsets(self.files.layout.offsets)


def _sentence(error: Exception, manifest: Manifest) -> str:
    """DuckDB's words as one sentence, and below it the line that it points at, if it does."""
    text, line, place = str(error).partition("\n\nLINE ")
    if absent := re.search(rf"Table with name ({'|'.join(RUN_VIEWS)}) does not exist", text):
        return f"query: the view {absent[1]} is of runs; name their folders (--runs on the command line, `runs` of data_catalog.open)"
    if (absent := re.search(r"(?:Table with name|Table Function with name) \"?(\w+)", text)) and (
        lost := without(manifest, absent[1])
    ):
        return f"query: {absent[1]} needs {lost}, which this copy of the catalog was fetched without; `clustermix fetch catalog` brings them"
    return f"query: {' '.join(text.split())}{line}{place}"


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
    catalog_files = open_files(root, version)
    manifest = catalog_files.manifest
    connection = duckdb.connect(config=SETTINGS)
    connection.execute("SET TimeZone = 'UTC'")
    views = view_files(manifest)
    for view, names in views.items():
        if outside := [name for name in names if not is_inside(root, name)]:
            raise UserError(
                f"{root}: {outside[0]} lies outside the catalog; do not use this catalog"
            )
        try:
            files = [f"{glob.escape(str(root))}/{glob.escape(name)}" for name in names]
            connection.read_parquet(files, hive_partitioning=False).create_view(view)
        except duckdb.Error as error:
            raise UserError(
                f"{root}: {view} cannot be read ({error}); `clustermix verify` tells which files are damaged"
            ) from error
    _derive(connection, views, manifest.levels)
    create_views(connection, folders, manifest.fingerprint)
    # Paths are checked as they are written in the view, where special characters are escaped.
    readable = [
        written
        for folder in (root, *folders)
        for written in (str(folder), glob.escape(str(folder)))
    ]
    connection.execute("SET allowed_directories = $readable", {"readable": readable})
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return Catalog(catalog_files, connection)


def _derive(
    connection: duckdb.DuckDBPyConnection, views: Mapping[str, object], levels: Levels
) -> None:
    for statement in (*derived(views.keys(), levels), *macros()):
        connection.execute(statement)


def without(manifest: Manifest, view: str) -> str:
    """The parts of the catalog that a view or macro needs and this copy of it was fetched without, as words; empty if none."""
    over = DERIVED[view].over if view in DERIVED else (view,)
    return ", ".join(part for part in over if part in manifest.left_out)


def view_files(manifest: Manifest) -> dict[str, list[str]]:
    """The files of each view over files, below the catalog: an older version's views must not see newer files."""
    found = {
        view: sorted(name for name in manifest.files if fnmatchcase(name, pattern))
        for view, pattern in FILES.items()
    }
    return {view: names for view, names in found.items() if names}


def write_database(root: Path, manifest: Manifest) -> None:
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
                connection.read_parquet(
                    [glob.escape(name) for name in names], hive_partitioning=False
                ).create_view(view)
            _derive(connection, views, manifest.levels)
        finally:
            connection.close()


def rebuild(root: Path) -> dict[str, int]:
    """Make `catalog.duckdb` again from the files of the newest version; says the `version`, and how many `views` and `macros` it has.

    Raises:
        UserError: there is no finished catalog at `root`, or a file of it is missing or damaged.
    """
    import duckdb  # noqa: PLC0415

    manifest = read_manifest(root)
    try:
        write_database(root, manifest)
    except duckdb.Error as error:
        raise UserError(
            f"{root}: cannot be read ({error}); `clustermix verify` tells which files are damaged"
        ) from error
    with duckdb.connect(str(Layout(root).database), read_only=True, config=SETTINGS) as made:
        counted = {
            "views": "SELECT count(*) FROM duckdb_views() WHERE NOT internal",
            "macros": "SELECT count(*) FROM duckdb_functions() WHERE NOT internal",
        }
        return {
            "version": manifest.version,
            **{name: made.execute(query).fetchall()[0][0] for name, query in counted.items()},
        }
