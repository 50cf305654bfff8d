"""The files for the DuckDB shell: `catalog.duckdb`, and `catalog.sql` with the same statements.

They contain only views and macros, so they can be deleted and written again at any time.
"""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from data_catalog.errors import UserError
from data_catalog.format.layout import Layout
from data_catalog.format.manifest import Manifest, read_manifest, replacing
from data_catalog.query.database import CONNECTION_SETTINGS, view_files
from data_catalog.query.run_views import run_macros
from data_catalog.query.views import derived_statements, file_statements, literal

_SCRIPT_HEAD = """\
-- Views and macros of this catalog. Start the shell in this folder: duckdb -init catalog.sql
"""


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
        text = "".join(f"{inspect.cleandoc(statement)};\n\n" for statement in statements)
        temporary.write_text(f"{_SCRIPT_HEAD}\n{text}", encoding="utf-8")
    # The shell would apply the changes of a log beside the database.
    for other in layout.root.glob(".catalog.duckdb.*.tmp*"):
        other.unlink()
    layout.database.with_name("catalog.duckdb.wal").unlink(missing_ok=True)


def _make_database(path: Path, root: Path, statements: Iterable[str]) -> None:
    import duckdb  # noqa: PLC0415

    with duckdb.connect(config=CONNECTION_SETTINGS) as connection:
        # All versions from 1.0 can open this format. It has all that views need.
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
