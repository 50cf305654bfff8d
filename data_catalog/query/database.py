"""SQL over the files of a catalog, with DuckDB, which can only read.

Three things prevent writing, each on its own: only statements that read are accepted, they run in a
read-only transaction, and the file system that DuckDB may use opens files to read them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog.errors import UserError
from data_catalog.format.damage import VERIFY_REMEDY
from data_catalog.format.files import CatalogFiles, open_files
from data_catalog.format.layout import Levels
from data_catalog.format.manifest import Manifest
from data_catalog.format.offsets import Offsets, read_offsets
from data_catalog.place import Folder, parse_folder
from data_catalog.query.notebook import Views, describe_catalog
from data_catalog.query.read_domain import read_domain
from data_catalog.query.read_only_files import SCHEME, ReadOnlyFiles
from data_catalog.query.run_views import (
    RUN_VIEWS,
    create_run_views,
    find_run_folders,
    run_macros,
)
from data_catalog.query.statements import reading_statement
from data_catalog.query.stored_catalog import StoredCatalogFiles
from data_catalog.query.views import (
    DERIVED_VIEWS,
    derived_statements,
    existing_view_files,
    file_statements,
    view_files,
)

if TYPE_CHECKING:
    import duckdb  # imported where it is needed, because the trainer does not need it
    import pyarrow as pa

    from data_catalog.plot import Plots

# DuckDB must not download extensions, nor read variables of the Python program.
CONNECTION_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}


@dataclass(frozen=True)
class Catalog:
    """An open, read-only catalog."""

    files: CatalogFiles
    _database: duckdb.DuckDBPyConnection

    @property
    def root(self) -> Path:
        """The folder of the catalog on this machine, absolute."""
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
        return f"Catalog({str(self.files.address)!r}, version {self.version}, domains at {levels})"

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
        (polars), `.to_arrow_table()` or `.fetchall()`. The relation cannot write or create
        anything, and each call has a connection of its own.

        Args:
            query: One SELECT statement, or EXPLAIN with one.
            parameters: Values of $NAME in the query. Always pass untrusted text this way.

        Raises:
            UserError: The query is invalid, refers to something unknown, or is not a SELECT.
        """
        import duckdb  # noqa: PLC0415

        connection = self._database.cursor()
        try:
            statement = reading_statement(connection, query)
            connection.execute("BEGIN TRANSACTION READ ONLY")
            return (
                connection.sql(statement, params=dict(parameters))
                if parameters
                else connection.sql(statement)
            )
        except duckdb.Error as error:
            raise UserError(_message(str(error), self.manifest)) from error

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
            raise UserError(_message(str(error), self.manifest)) from error
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
        return read_offsets(self.files)


def _message(error: str, manifest: Manifest, subject: str = "query") -> str:
    """Return DuckDB's message on one line, followed by the line of the query that it points at."""
    text, line, position = error.partition("\n\nLINE ")
    about_a_file, text = SCHEME in text, text.replace(SCHEME, "")
    if "Traceback (most recent call last)" in text:  # an error of `ReadOnlyFiles`
        text = text.rstrip().rpartition("\n")[2].partition(": ")[2]
        about_a_file = False
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
    message = f"{subject}: {' '.join(text.split())}{line}{position}"
    return _with_remedy(message) if about_a_file else message


def open(
    root: str | Folder, version: int | None = None, runs: Sequence[str | Path] = ()
) -> Catalog:
    """Open the catalog at `root`.

    Queries can read only files below `root` and in the folders of `runs`.

    Args:
        root: Folder of the catalog, or its URL in an object store.
        version: Version to open. None means the newest.
        runs: Run folders, or glob patterns of them. The views `runs`, `weights`, `scores` and
            `metrics` cover these runs.

    Raises:
        UserError: There is no finished catalog or no such version, a file is missing or damaged,
            the store cannot be read, or no run matches `runs`.
    """
    import duckdb  # noqa: PLC0415

    place = parse_folder(root)
    folders = find_run_folders(runs)
    catalog_files = open_files(place.resolve() if isinstance(place, Path) else place, version)
    root, manifest = catalog_files.root, catalog_files.manifest
    connection = duckdb.connect(config=CONNECTION_SETTINGS)
    if catalog_files.store is None:
        files = ReadOnlyFiles((root, *folders), _checksum_of(catalog_files))
        views = existing_view_files(root, manifest)
    else:
        files = StoredCatalogFiles(catalog_files, folders, _checksum_of(catalog_files))
        views = view_files(manifest)
    connection.register_filesystem(files)
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    statements = (
        *file_statements(views, f"{SCHEME}{root}/"),
        *derived_statements(views.keys(), manifest.levels),
        *run_macros(SCHEME),
    )
    try:
        for statement in statements:
            connection.execute(statement)
        create_run_views(connection, folders, manifest.fingerprint)
    except duckdb.Error as error:
        text = str(error).partition("\n\nLINE ")[0]
        raise UserError(_with_remedy(_message(text, manifest, str(place)))) from error
    files.close_others(connection)
    return Catalog(catalog_files, connection)


def _checksum_of(files: CatalogFiles) -> Callable[[Path], None]:
    """Return a function that compares a file of a catalog, unless it is large."""

    def check(path: Path) -> None:
        if path.is_relative_to(files.root):
            files.verified.compare_small(path.relative_to(files.root).as_posix())

    return check


def _with_remedy(message: str) -> str:
    return message if VERIFY_REMEDY in message else f"{message.rstrip('.')}. {VERIFY_REMEDY}"


def missing_parts(manifest: Manifest, view: str) -> str:
    """Return the parts of the catalog that a view or macro needs and this copy does not have.

    Returns:
        Names separated by commas, or an empty string.
    """
    views = DERIVED_VIEWS[view].views if view in DERIVED_VIEWS else (view,)
    return ", ".join(part for part in views if part in manifest.left_out)
