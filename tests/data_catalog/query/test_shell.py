"""catalog.duckdb and catalog.sql in the shell that `pip install duckdb-cli` installs."""

import json
import re
import shutil
import subprocess
import sys

import duckdb
import pytest

import data_catalog
from data_catalog import UserError
from data_catalog.format.layout import Layout
from data_catalog.query.shell_files import rebuild_database
from tests.helpers.leftovers import temporary_of_killed
from tests.helpers.tiny_run import write_run

pytest.importorskip("duckdb_cli", reason="duckdb-cli is not installed: pip install duckdb-cli")

CALLS = (
    *("domain_docs(4, 1)", "overlap('space', 'natural')", "nearest_domains('space', 2)"),
    *(f"run_{name}('../run')" for name in ("summary", "metrics", "weights", "scores")),
)


@pytest.fixture(scope="module")
def moved(built, tmp_path_factory):
    """A copy of the catalog under a name with special characters, and a run beside it."""
    folder = tmp_path_factory.mktemp("moved")
    write_run(folder / "run")
    root = folder / "an [odd] 'name'"
    shutil.copytree(built[0], root, ignore=shutil.ignore_patterns("work"))
    rebuild_database(root)
    return root


def shell(folder, *arguments):
    command = [sys.executable, "-m", "duckdb_cli", *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("start", [("-readonly", "catalog.duckdb"), ("-init", "catalog.sql")])
def test_every_view_and_macro_answers_as_in_python(moved, start):
    catalog = data_catalog.open(moved)
    views = [name for (name,) in catalog.sql("SHOW TABLES").fetchall()]
    asked = [*views, *CALLS[:3]]
    counts = [f"SELECT count(*) AS n FROM {name}" for name in asked]
    script = "; ".join(["SHOW TABLES", *counts, *(f"FROM {call}" for call in CALLS)])
    lines = shell(moved, *start, "-jsonlines", "-c", script).splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    assert [row["name"] for row in rows[: len(views)]] == views
    found = [row["n"] for row in rows[len(views) : len(views) + len(asked)]]
    assert found == [catalog.table(f"FROM {name}").num_rows for name in asked]
    assert any(row.get("mixer") == "dga" for row in rows)
    assert sorted(path.name for path in moved.glob("*catalog.*")) == [
        *("catalog.duckdb", "catalog.json", "catalog.sql"),
    ]


def test_the_shell_started_elsewhere_finds_the_files_by_a_setting(moved, tmp_path):
    place = str(moved).replace("'", "''")
    script = f"SET file_search_path = '{place}'; SELECT count(*) AS n FROM documents"
    answer = shell(tmp_path, "-readonly", str(moved / "catalog.duckdb"), "-csv", "-c", script)
    assert answer.split() == ["n", "160"]


def test_the_script_has_the_statements_of_the_database(moved):
    script = Layout(moved).statements.read_text()
    made = re.findall(r"^CREATE (?:VIEW|MACRO) (\w+)", script, re.MULTILINE)
    with duckdb.connect(str(moved / "catalog.duckdb"), read_only=True) as connection:
        views = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal")
        names = {name for (name,) in views.fetchall()}
        macros = connection.execute(
            "SELECT function_name FROM duckdb_functions() WHERE NOT internal"
        )
        names |= {name for (name,) in macros.fetchall()}
    assert set(made) == names
    assert len(made) == len(names)


def test_writing_leaves_no_log_and_no_temporary_file(built, tmp_path):
    shutil.copytree(built[0], tmp_path / "catalog", ignore=shutil.ignore_patterns("work"))
    before = sorted(path.name for path in (tmp_path / "catalog").iterdir())
    killed = temporary_of_killed(tmp_path / "catalog" / "catalog.duckdb").name
    for name in (killed, ".catalog.duckdb.1.tmp.wal", "catalog.duckdb.wal"):
        (tmp_path / "catalog" / name).write_bytes(b"left by a killed process")
    assert rebuild_database(tmp_path / "catalog")["views"] == 19
    assert sorted(path.name for path in (tmp_path / "catalog").iterdir()) == before


def test_a_missing_file_leaves_the_old_database(built, tmp_path):
    shutil.copytree(built[0], tmp_path / "catalog", ignore=shutil.ignore_patterns("work"))
    layout = Layout(tmp_path / "catalog")
    before = layout.database.read_bytes()
    layout.domains.unlink()
    with pytest.raises(UserError, match="domains"):
        rebuild_database(layout.root)
    assert layout.database.read_bytes() == before
