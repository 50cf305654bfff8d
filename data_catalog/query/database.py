"""SQL over the files of a catalog, with DuckDB, which can only read.

Three things prevent writing, each on its own: only statements that read are accepted, they run in a
read-only transaction, and the file system that DuckDB may use opens files to read them.
"""

from __future__ import annotations

import inspect
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
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
from data_catalog.query.read_only_files import SCHEME, ReadOnlyFiles
from data_catalog.query.run_views import (
    RUN_VIEWS,
    create_run_views,
    find_run_folders,
    run_macros,
)
from data_catalog.query.statements import reading_statement
from data_catalog.query.views import (
    DERIVED_VIEWS,
    VIEW_FILES,
    derived_statements,
    file_statements,
    literal,
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

_SCRIPT_HEAD = """\
-- Views and macros of this catalog. Start the shell in this folder: duckdb -init catalog.sql
"""


@dataclass(frozen=True)
class Catalog:
    """An open, read-only catalog."""

    files: CatalogFiles
    _database: duckdb.DuckDBPyConnection

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
    text, line, position = str(error).replace(SCHEME, "").partition("\n\nLINE ")
    if "Traceback (most recent call last)" in text:  # an error of `ReadOnlyFiles`
        text = text.rstrip().rpartition("\n")[2].partition(": ")[2]
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
    connection = duckdb.connect(config=CONNECTION_SETTINGS)
    files = ReadOnlyFiles((root, *folders))
    connection.register_filesystem(files)
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    views = view_files(manifest)
    for view, names in views.items():
        if outside := [name for name in names if not is_inside(root, name)]:
            raise UserError(
                f"{root}: {outside[0]} is outside the catalog. Do not use this catalog."
            )
        [statement] = file_statements({view: names}, f"{SCHEME}{root}/")
        try:
            connection.execute(statement)
        except duckdb.Error as error:
            raise UserError(
                f"{root}: the view {view} cannot be created ({_message(error, manifest)}). "
                "Run `clustermix verify` to see which files are damaged."
            ) from error
    for statement in (*derived_statements(views.keys(), manifest.levels), *run_macros(SCHEME)):
        connection.execute(statement)
    create_run_views(connection, folders, manifest.fingerprint)
    files.close_others(connection)
    return Catalog(catalog_files, connection)


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
    """Write `catalog.duckdb` and `catalog.sql` with the views and macros of one version.

    They are meant for the DuckDB shell, started in the folder of the catalog.
    """
    layout = Layout(root.resolve())
    views = view_files(manifest)
    statements = (
        *file_statements(views),
        *derived_statements(views.keys(), manifest.levels),
        *run_macros(),
    )
    # DuckDB writes a second file beside the database, which a killed process would leave behind.
    with tempfile.TemporaryDirectory(prefix="clustermix-") as folder:
        made = Path(folder) / "catalog.duckdb"
        _make_database(made, layout.root, statements)
        with replacing(layout.database) as temporary:
            shutil.copyfile(made, temporary)
    with replacing(layout.statements) as temporary:
        text = "".join(f"{inspect.cleandoc(statement).strip()};\n\n" for statement in statements)
        temporary.write_text(f"{_SCRIPT_HEAD}\n{text}", encoding="utf-8")
    # The shell would apply the changes of a log beside the database.
    for other in layout.root.glob(".catalog.duckdb.*.tmp*"):
        other.unlink()
    layout.database.with_name("catalog.duckdb.wal").unlink(missing_ok=True)


def _make_database(path: Path, root: Path, statements: Iterable[str]) -> None:
    import duckdb  # noqa: PLC0415

    with duckdb.connect(config=CONNECTION_SETTINGS) as connection:
        # DuckDB 1 cannot open the format of DuckDB 2. This one has all that views need.
        connection.execute(f"ATTACH {literal(str(path))} AS made (STORAGE_VERSION 'v1.0.0')")
        connection.execute("USE made")
        # DuckDB reads the files when a view is created. It finds them relative to this path, but
        # the view stores only the path below the catalog.
        connection.execute("SET file_search_path = $root", {"root": str(root)})
        for statement in statements:
            connection.execute(statement)
        connection.execute("USE memory")
        connection.execute("DETACH made")


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
    with duckdb.connect(path, read_only=True, config=CONNECTION_SETTINGS) as database:
        queries = {
            "views": "SELECT count(*) FROM duckdb_views() WHERE NOT internal",
            "macros": "SELECT count(*) FROM duckdb_functions() WHERE NOT internal",
        }
        counts = {name: database.execute(query).fetchall()[0][0] for name, query in queries.items()}
        return {"version": manifest.version, **counts}
