"""DuckDB over a catalog's files: views only, so that the database can be thrown away and made again at any time."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog.errors import UserError
from data_catalog.layout import Layout, Levels
from data_catalog.manifest import read_manifest, replacing
from data_catalog.views import DERIVED, FILES

if TYPE_CHECKING:
    import duckdb  # imported by the functions that need it: the trainer does without

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

    def sql(self, query: str) -> duckdb.DuckDBPyRelation:
        """Run one SELECT over the views; `.df()`, `.fetchall()`, `.to_arrow_table()` and printing work on the answer.

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


def open(root: str | Path) -> Catalog:
    """Open the catalog at `root`. Queries can read files below `root` and nothing else, and nothing from the network.

    Raises:
        UserError: there is no finished catalog at `root`, or a file of it is missing or damaged.
    """
    import duckdb  # noqa: PLC0415

    root = Path(root).resolve()
    manifest = read_manifest(root)
    connection = duckdb.connect(config=SETTINGS)
    connection.execute("SET TimeZone = 'UTC'")
    for view, pattern in FILES.items():
        try:
            connection.read_parquet(f"{glob.escape(str(root))}/{pattern}", hive_partitioning=False).create_view(view)
        except duckdb.Error as error:
            raise UserError(f"{root}: {pattern} cannot be read ({error}); `clustermix verify` tells which files are damaged") from error
    for statement in DERIVED.values():
        connection.execute(statement)
    # Paths are checked as they are written in the view, where special characters are escaped.
    connection.execute("SET allowed_directories = [$root, $escaped]", {"root": str(root), "escaped": glob.escape(str(root))})
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return Catalog(root, manifest, connection)


def write_database(root: Path) -> None:
    """Write `catalog.duckdb` with the same views, for the DuckDB shell started in the catalog's folder."""
    import duckdb  # noqa: PLC0415

    root = root.resolve()
    with replacing(Layout(root).database) as temporary:
        connection = duckdb.connect(str(temporary), config=SETTINGS)
        try:
            # A view is checked when it is made: find its files from here, while it stores the path below the catalog.
            connection.execute("SET file_search_path = $root", {"root": str(root)})
            for view, pattern in FILES.items():
                connection.execute(f"CREATE VIEW {view} AS FROM read_parquet('{pattern}', hive_partitioning = false)")
            for statement in DERIVED.values():
                connection.execute(statement)
        finally:
            connection.close()
