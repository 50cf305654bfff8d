"""SQL over the files of a catalog, with DuckDB.

The database contains only views and macros, so it can be deleted and created again at any time.
"""

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
from data_catalog.query.notebook import Views, describe_catalog
from data_catalog.query.read_domain import read_domain
from data_catalog.query.run_views import (
    RUN_VIEWS,
    create_run_views,
    find_run_folders,
    run_macros,
)
from data_catalog.query.views import DERIVED_VIEWS, VIEW_FILES, derived_statements

if TYPE_CHECKING:
    import duckdb  # imported where it is needed, because the trainer does not need it
    import pyarrow as pa

    from data_catalog.plot import Plots

# DuckDB must not download extensions.
_CONNECTION_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
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
        return describe_catalog(self, self.files)

    @cached_property
    def views(self) -> Views:
        """The views as attributes.

        `catalog.views.domains` is the same as `catalog.sql("FROM domains")`. `list(catalog.views)`
        returns their names.
        """
        return Views(self)

    @cached_property
    def plot(self) -> Plots:
        """Figures, such as `catalog.plot.treemap()`. They need the extra `notebook`."""
        from data_catalog.plot import Plots  # noqa: PLC0415

        return Plots(self, self.files)

    def sql(
        self, query: str, parameters: Mapping[str, Any] | None = None
    ) -> duckdb.DuckDBPyRelation:
        """Prepare one SELECT over the views and macros.

        The query runs when the result is printed or converted with `.df()` (pandas), `.pl()`
        (polars), `.to_arrow_table()` or `.fetchall()`.

        Args:
            query: One SELECT statement.
            parameters: Values of $NAME in the query. Always pass untrusted text this way.

        Raises:
            UserError: The query is invalid, refers to something unknown, or is not a SELECT.
        """
        import duckdb  # noqa: PLC0415

        try:
            kinds = [statement.type.name for statement in self.connection.extract_statements(query)]
            if len(kinds) != 1 or kinds[0] not in {"SELECT", "EXPLAIN"}:
                raise UserError(
                    f"query: found {', '.join(kinds) or 'nothing'}. Expected one SELECT, as "
                    "catalogs are read-only."
                )
            return (
                self.connection.sql(query, params=dict(parameters))
                if parameters
                else self.connection.sql(query)
            )
        except duckdb.Error as error:
            raise UserError(_message(error, self.manifest)) from error

    def table(self, query: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Return the result of one SELECT as an Arrow table.

        Args:
            query: One SELECT statement.
            parameters: Values of $NAME in the query.

        Raises:
            UserError: The query is refused by `sql` or fails, for example because a macro is called
                for an unknown domain or memory is insufficient.
            KeyboardInterrupt: The query was interrupted.
        """
        import duckdb  # noqa: PLC0415

        try:
            return self.sql(query, parameters).to_arrow_table()
        except duckdb.Error as error:
            raise UserError(_message(error, self.manifest)) from error
        except RuntimeError as error:
            if "interrupted" in str(error):  # raised by DuckDB on Ctrl-C
                raise KeyboardInterrupt from error
            raise

    def domain(self, level: int, domain: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the documents of one domain, sorted by leaf, then train before heldout.

        This takes milliseconds for a catalog of any size.

        Args:
            level: Granularity of the domain's level.
            domain: Number of the domain.
            columns: Columns of the view `documents`. None means all.

        Raises:
            UserError: The level, domain or a column does not exist, or a file is damaged.
        """
        self.files.require("documents")
        return read_domain(self.files, self._offsets, level, domain, columns)

    @cached_property
    def _offsets(self) -> Offsets:
        return read_offsets(self.files.layout.offsets)


def _message(error: Exception, manifest: Manifest) -> str:
    """Return DuckDB's message on one line, followed by the line of the query that it points at."""
    text, line, position = str(error).partition("\n\nLINE ")
    if missing := re.search(rf"Table with name ({'|'.join(RUN_VIEWS)}) does not exist", text):
        return (
            f"query: the view {missing[1]} needs runs. Give their folders with --runs on the "
            "command line or with `runs` of data_catalog.open."
        )
    missing = re.search(r"(?:Table with name|Table Function with name) \"?(\w+)", text)
    if missing and (parts := missing_parts(manifest, missing[1])):
        return (
            f"query: {missing[1]} needs {parts}, which this copy of the catalog was fetched "
            "without. Fetch them with `clustermix fetch catalog`."
        )
    return f"query: {' '.join(text.split())}{line}{position}"


def open(root: str | Path, version: int | None = None, runs: Sequence[str | Path] = ()) -> Catalog:
    """Open the catalog at `root`.

    Queries can read only files below `root` and in the folders of `runs`.

    Args:
        root: Folder of the catalog.
        version: Version to open. None means the newest.
        runs: Run folders, or glob patterns of them. The views `runs`, `weights`, `scores` and
            `metrics` cover these runs.

    Raises:
        UserError: There is no finished catalog or no such version, a file is missing or damaged, or
            no run matches `runs`.
    """
    import duckdb  # noqa: PLC0415

    root = Path(root).resolve()
    folders = find_run_folders(runs)
    catalog_files = open_files(root, version)
    manifest = catalog_files.manifest
    connection = duckdb.connect(config=_CONNECTION_SETTINGS)
    connection.execute("SET TimeZone = 'UTC'")
    views = view_files(manifest)
    for view, names in views.items():
        if outside := [name for name in names if not is_inside(root, name)]:
            raise UserError(
                f"{root}: {outside[0]} is outside the catalog. Do not use this catalog."
            )
        try:
            files = [f"{glob.escape(str(root))}/{glob.escape(name)}" for name in names]
            connection.read_parquet(files, hive_partitioning=False).create_view(view)
        except duckdb.Error as error:
            raise UserError(
                f"{root}: the view {view} cannot be created ({error}). "
                "Run `clustermix verify` to see which files are damaged."
            ) from error
    _create_derived(connection, views, manifest.levels)
    create_run_views(connection, folders, manifest.fingerprint)
    # DuckDB compares paths as they are written in a view, where special characters are escaped.
    readable = [
        written
        for folder in (root, *folders)
        for written in (str(folder), glob.escape(str(folder)))
    ]
    connection.execute("SET allowed_directories = $readable", {"readable": readable})
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return Catalog(catalog_files, connection)


def _create_derived(
    connection: duckdb.DuckDBPyConnection, views: Mapping[str, object], levels: Levels
) -> None:
    for statement in (*derived_statements(views.keys(), levels), *run_macros()):
        connection.execute(statement)


def missing_parts(manifest: Manifest, view: str) -> str:
    """Return the parts of the catalog that a view or macro needs and this copy does not have.

    Returns:
        Names separated by commas, or an empty string.
    """
    views = DERIVED_VIEWS[view].views if view in DERIVED_VIEWS else (view,)
    return ", ".join(part for part in views if part in manifest.left_out)


def view_files(manifest: Manifest) -> dict[str, list[str]]:
    """Return the files of each view, as paths below the catalog.

    Only files that the manifest names are included, so an older version does not see newer files.
    """
    matches = {
        view: sorted(name for name in manifest.files if fnmatchcase(name, pattern))
        for view, pattern in VIEW_FILES.items()
    }
    return {view: names for view, names in matches.items() if names}


def write_database(root: Path, manifest: Manifest) -> None:
    """Write `catalog.duckdb` with the views and macros of one version.

    It is meant for the DuckDB shell, started in the folder of the catalog.
    """
    import duckdb  # noqa: PLC0415

    root = root.resolve()
    with replacing(Layout(root).database) as temporary:
        connection = duckdb.connect(str(temporary), config=_CONNECTION_SETTINGS)
        try:
            # DuckDB reads the files when a view is created. It finds them relative to this path,
            # but the view stores only the path below the catalog.
            connection.execute("SET file_search_path = $root", {"root": str(root)})
            views = view_files(manifest)
            for view, names in views.items():
                connection.read_parquet(
                    [glob.escape(name) for name in names], hive_partitioning=False
                ).create_view(view)
            _create_derived(connection, views, manifest.levels)
        finally:
            connection.close()


def rebuild_database(root: Path) -> dict[str, int]:
    """Write `catalog.duckdb` again from the files of the newest version.

    Returns:
        The `version`, and the numbers of `views` and `macros`.

    Raises:
        UserError: There is no finished catalog at `root`, or a file is missing or damaged.
    """
    import duckdb  # noqa: PLC0415

    manifest = read_manifest(root)
    try:
        write_database(root, manifest)
    except duckdb.Error as error:
        raise UserError(
            f"{root}: cannot be read ({error}). "
            "Run `clustermix verify` to see which files are damaged."
        ) from error
    path = str(Layout(root).database)
    with duckdb.connect(path, read_only=True, config=_CONNECTION_SETTINGS) as database:
        queries = {
            "views": "SELECT count(*) FROM duckdb_views() WHERE NOT internal",
            "macros": "SELECT count(*) FROM duckdb_functions() WHERE NOT internal",
        }
        counts = {name: database.execute(query).fetchall()[0][0] for name, query in queries.items()}
        return {"version": manifest.version, **counts}
