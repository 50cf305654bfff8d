"""Commands leave nothing in the current folder but what was asked for."""

import subprocess
import sys

import pytest

from tests.flows.cli.test_main import clustermix, toml
from tests.helpers.repository import ROOT

CATALOG = "CATALOG"


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (["--help"], set()),
        (["query", CATALOG, "SELECT DISTINCT text FROM documents ORDER BY text"], set()),
        (["domains", CATALOG, "--search", "star"], set()),
        (["quality", CATALOG, "--preset", "gopher"], set()),
        (["verify", CATALOG], set()),
        (["plan", "CONFIG"], set()),
        (["report", CATALOG, "--out", "page.html"], {"page.html"}),
        (["export", "documents", CATALOG, "out"], {"out"}),
        (["export", "catalog", CATALOG, "copy"], {"copy"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_leaves_what_was_asked_for(built, tmp_path, monkeypatch, words, made):
    (tmp_path / "config.toml").write_text(toml(built[1]))
    (tmp_path / "current").mkdir()
    monkeypatch.chdir(tmp_path / "current")
    places = {CATALOG: str(built[0]), "CONFIG": str(tmp_path / "config.toml")}
    done = clustermix(*[places.get(word, word) for word in words])
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "current").iterdir()} == made


def test_no_lock_or_cache_is_tracked():
    done = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = {line.rpartition("/")[2] for line in done.stdout.splitlines()}
    assert not {
        name for name in names if name in {".lock", ".env"} or name.endswith((".pyc", ".tmp"))
    }


@pytest.mark.system
@pytest.mark.parametrize("words", [["verify", CATALOG], ["train", "CONFIG", "--dry-run"]])
def test_a_command_without_a_flow_does_not_import_prefect(built, tmp_path, words):
    (tmp_path / "train.toml").write_text(
        f'catalog = "{built[0]}"\nout = "{tmp_path}/run"\ntarget = "space"\n'
        "[training]\nsequence_tokens = 16\n"
    )
    places = {CATALOG: str(built[0]), "CONFIG": str(tmp_path / "train.toml")}
    code = f"""
import sys
sys.argv = ["clustermix", *{[places.get(word, word) for word in words]!r}]
from flows.cli.main import main
try:
    main()
finally:
    assert "prefect" not in sys.modules
    print("NO PREFECT")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "NO PREFECT" in done.stdout, done.stderr
    assert done.returncode == 0, done.stderr
