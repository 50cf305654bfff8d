"""`catalog.duckdb` and `catalog.sql`: the views of a catalog for the DuckDB shell.

`catalog.sql` begins with the checksums of both files. They are in no manifest, because they can be
made again at any time, by any version of clustermix.
"""

import hashlib
import inspect
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb

from data_catalog.errors import UserError
from data_catalog.format.damage import first_line, unreadable
from data_catalog.format.layout import Layout
from data_catalog.format.manifest import Manifest, is_inside, read_manifest, sha256_file
from data_catalog.query.database import CONNECTION_SETTINGS
from data_catalog.query.run_views import run_macros
from data_catalog.query.views import (
    derived_statements,
    existing_view_files,
    file_statements,
    literal,
)
from data_catalog.temporary import remove_unfinished, replacing

_HEAD = """\
-- Views and macros of this catalog. Start the shell in this folder: duckdb -init catalog.sql
-- SHA-256 of catalog.duckdb: {database}
-- SHA-256 of the statements: {statements}

"""
_HEAD_LINES = _HEAD.count("\n")
_REMEDY = "Write it again with `clustermix rebuild`."


def write_database(root: Path, manifest: Manifest) -> None:
    """Write `catalog.duckdb` and `catalog.sql` with the views and macros of one version.

    They are meant for the DuckDB shell, started in the folder of the catalog.
    """
    layout = Layout(root.resolve())
    views = existing_view_files(layout.root, manifest)
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
        script = "".join(f"{inspect.cleandoc(statement).strip()};\n\n" for statement in statements)
        head = _HEAD.format(
            database=sha256_file(layout.database),
            statements=hashlib.sha256(script.encode()).hexdigest(),
        )
        temporary.write_text(head + script, encoding="utf-8")
    remove_unfinished((layout.root,))
    # The shell would apply the changes of a log beside the database.
    for log in (*layout.root.glob(".catalog.duckdb.*.tmp.wal"), layout.root / "catalog.duckdb.wal"):
        log.unlink(missing_ok=True)


def _make_database(path: Path, root: Path, statements: Iterable[str]) -> None:
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


def shell_faults(root: Path) -> Iterator[str]:
    """Yield a sentence for each of the two files that is damaged or was replaced.

    A catalog of an earlier version of clustermix has no `catalog.sql`. Its database is opened.
    """
    layout = Layout(root)
    for path in (layout.database, layout.statements):
        if os.path.lexists(path) and not is_inside(root, path.name):
            yield f"{path.name}: lies outside the catalog. {_REMEDY}"
            return
    if reason := unreadable(layout.database):
        yield f"{layout.database.name}: {reason.removeprefix('the file is ')}. {_REMEDY}"
        return
    if not os.path.lexists(layout.statements):
        try:
            with duckdb.connect(str(layout.database), read_only=True, config=CONNECTION_SETTINGS):
                return
        except duckdb.Error as error:
            yield f"{layout.database.name}: cannot be read ({first_line(error)}). {_REMEDY}"
            return
    try:
        lines = layout.statements.read_bytes().splitlines(keepends=True)
        database = sha256_file(layout.database)
    except OSError as error:
        yield f"{Path(error.filename).name}: cannot be read ({first_line(error)}). {_REMEDY}"
        return
    statements = hashlib.sha256(b"".join(lines[_HEAD_LINES:])).hexdigest()
    head = b"".join(lines[:_HEAD_LINES])
    if head != _HEAD.format(database=database, statements=statements).encode():
        known = _HEAD.format(database="", statements=statements).encode().splitlines()[2]
        name = layout.database.name if known in head.splitlines() else layout.statements.name
        yield f"{name}: checksum differs. {_REMEDY}"
