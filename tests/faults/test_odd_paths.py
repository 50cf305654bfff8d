"""Catalogs and runs below a folder whose name is not UTF-8: one sentence, in any command."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.flows.cli.test_main import COMMAND, toml
from tests.helpers.repository import ROOT
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_corpus import write_corpus
from tests.helpers.tiny_training import write_config

pytestmark = pytest.mark.faults(
    "Odd folder names",
    tried="Catalogs, runs, exports and copies in folders whose path is not UTF-8, given to each "
    "command as an argument, by the current folder, through a link and with --set.",
    expected="One sentence with the path, in which such bytes are written as \\xNN, exit code 2, "
    "and nothing is written.",
)

SELECT = "SELECT count(*) FROM domains"
COMMANDS = {
    "verify": ("verify", "ODD/catalog"),
    "verify --json": ("verify", "ODD/catalog", "--json"),
    "verify through a link": ("verify", "LINK/catalog"),
    "verify in the current folder": ("verify", "catalog"),
    "query": ("query", "ODD/catalog", SELECT),
    "domains": ("domains", "ODD/catalog"),
    "quality": ("quality", "ODD/catalog"),
    "rebuild": ("rebuild", "ODD/catalog"),
    "report": ("report", "ODD/catalog"),
    "report of a run": ("report", "ODD/run"),
    "serve": ("serve", "ODD/run"),
    "replay": ("replay", "ODD/run", "--out", "ODD/again"),
    "add": ("add", "ODD/catalog", "GOOD/add.toml"),
    "plan": ("plan", "GOOD/build.toml"),
    "build": ("build", "GOOD/build.toml"),
    "build with --set": ("build", "GOOD/build.toml", "--set", "out=ODD/new"),
    "train": ("train", "GOOD/run.toml"),
    "export": ("export", "catalog", "GOOD/catalog", "ODD/copy"),
    "export documents": ("export", "documents", "GOOD/catalog", "ODD/copy"),
    "fetch": ("fetch", "catalog", "GOOD/catalog", "ODD/copy"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with a catalog, and one of an odd name with a copy of it and a run."""
    good = tmp_path_factory.mktemp("paths")
    odd = Path(os.fsdecode(os.fsencode(good) + b"/caf\xe9"))
    write_tiny_catalog(good / "catalog")
    shutil.copytree(good / "catalog", odd / "catalog")  # Arrow cannot write there
    (odd / "run").mkdir()
    (odd / "run" / "config.json").write_text("{}")
    (good / "link").symlink_to(odd)
    (good / "build.toml").write_text(toml(write_corpus(good, documents=8) | {"out": "new"}))
    (good / "add.toml").write_text(toml({"source": {"kind": "jsonl", "path": str(good)}}))
    write_config(good, good / "catalog", Path("run"))
    return good, odd


@pytest.mark.parametrize("name", COMMANDS)
def test_the_folder_is_named(folders, name):
    good, odd = folders
    places = {"ODD": str(odd), "GOOD": str(good), "LINK": str(good / "link")}
    words = list(COMMANDS[name])
    for key, path in places.items():
        words = [word.replace(key, path) for word in words]
    before = listing(good)
    done = subprocess.run(
        [*COMMAND, *words],
        cwd=odd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        timeout=120,
    )
    [sentence] = [line for line in done.stderr.splitlines() if line.startswith(b"clustermix: ")]
    assert done.returncode == 2, done.stderr
    assert b"not UTF-8" in sentence
    assert b"\\xe9" in sentence or b"--set out" in sentence
    assert b"Traceback" not in done.stderr
    assert listing(good) == before


def listing(folder: Path) -> list[str]:
    return sorted(map(str, folder.rglob("*")))
