"""Folders that somebody else prepared, with links to files and folders of this user."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data_catalog import UserError
from data_catalog.export.documents import export_documents
from data_catalog.format.own_files import open_own_file
from data_catalog.query.shell_files import rebuild_database
from data_catalog.settings import parse
from data_catalog.transfer.copy import export_catalog, fetch_catalog
from flows.pages.catalog.page import write_catalog_page
from flows.pages.run.page import write_report
from pipeline.add import add
from pipeline.config import Addition, Build
from pipeline.fetch.partial import PartialFile, RemoteFile
from pipeline.fetch.record import open_record
from pipeline.run import build
from tests.helpers.faults import Lost
from tests.helpers.leftovers import temporary_of_killed
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_corpus import write_corpus
from tests.helpers.tiny_run import tiny_run_record, write_run
from tests.helpers.tiny_training import tiny_config
from trainer.config import Train
from trainer.loop import train

pytestmark = pytest.mark.faults(
    "Folders of strangers",
    tried="In a folder that build, add, train, fetch, export, rebuild or report writes to, one "
    "file or folder is a symbolic link to a file or folder of the user, or a pipe.",
    expected="The user's files are unchanged, and the command says which link it refuses. A "
    "command that replaces the file by a rename replaces the link instead, and succeeds.",
)

FOLDERS = {"work", "documents", "versions", "tree", "targets", "tokenizer", "checkpoints", "model"}


@pytest.fixture
def victim(tmp_path: Path):
    """A folder with a file of the user, which is compared after the trial."""
    folder = tmp_path / "precious"
    (folder / "inside").mkdir(parents=True)
    (folder / "letter.txt").write_text("precious data")
    yield folder
    files = {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}
    if files != {"letter.txt": "precious data"} or not (folder / "inside").is_dir():
        raise Lost(f"the user's folder has changed: {files}")


def plant(root: Path, name: str, victim: Path) -> None:
    """Put a link at `name`: to the user's folder if the product has a folder there."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(victim if path.name in FOLDERS else victim / "letter.txt")


def refused(command: Callable[[], object], name: str) -> None:
    with pytest.raises(UserError, match="symbolic link") as error:
        command()
    assert name in str(error.value)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize(
    "name",
    [
        *("work/.lock", "work", "work/source", "work/tokenizer", "documents", "versions", "tree"),
        *("targets/space", "catalog.duckdb", "versions/0001/offsets.parquet", "catalog.sql"),
        *("documents/top=0000/part-0000.parquet",),
    ],
)
def test_build(settings, tmp_path, victim, name):
    config = parse(Build, {**settings, "out": str(tmp_path / "catalog")}, "test")
    (config.out / "work").mkdir(parents=True)  # as in a build that was stopped
    plant(config.out, name, victim)
    refused(lambda: build(config), name)


def test_a_link_to_the_catalog_itself_is_the_users(settings, tmp_path, victim):
    """The folder may be a link. Refusing starts below it, and dangling links count."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "catalog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "catalog.json").symlink_to(victim / "not there")
    config = parse(Build, {**settings, "out": str(tmp_path / "catalog")}, "test")
    refused(lambda: build(config), "catalog.json")


@pytest.mark.parametrize(
    "name",
    [
        "work/.lock",
        "work",
        "versions/0002/offsets.parquet",
        "targets/new",
        "signals/0002-a.parquet",
    ],
)
def test_add(settings, tmp_path, victim, name):
    root = write_tiny_catalog(tmp_path / "catalog")
    plant(root, name, victim)
    addition = parse(Addition, {"source": settings["source"]}, "test")
    refused(lambda: add(root, addition), name)


@pytest.mark.parametrize(
    "name",
    [
        *(".lock", "metrics.jsonl", "checkpoints", "checkpoints/00000004", "model", "fault.json"),
        *("weights.parquet", "usage.parquet", ".metrics.jsonl.1.tmp"),
    ],
)
def test_train(tmp_path, victim, name):
    config = stopped_run(tmp_path)
    plant(config.out, name, victim)
    refused(lambda: train(config), name)


def stopped_run(folder: Path) -> Train:
    """Return the config of a run that was stopped before its first checkpoint."""
    config = tiny_config(write_tiny_catalog(folder / "catalog"), folder / "run")
    config.out.mkdir()
    (config.out / "config.json").write_text(json.dumps(tiny_run_record()))
    return config


def test_train_with_a_record_that_is_a_link(tmp_path, victim):
    config = tiny_config(write_tiny_catalog(tmp_path / "catalog"), tmp_path / "run")
    plant(config.out, "config.json", victim)
    with pytest.raises(UserError, match=r"config\.json"):
        train(config)


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl"])
def test_train_in_a_folder_with_a_pipe(tmp_path, name):
    config = stopped_run(tmp_path)
    os.mkfifo(config.out / name)
    with pytest.raises(UserError, match="not a regular file"):
        train(config)


@pytest.mark.parametrize(
    "name", [".lock", "documents", "versions/0001/catalog.json", "catalog.json", "catalog.duckdb"]
)
def test_fetch_catalog(built, tmp_path, victim, name):
    plant(tmp_path / "copy", name, victim)
    refused(lambda: fetch_catalog(str(built[0]), tmp_path / "copy"), name)


@pytest.mark.parametrize("name", ["tokens", "versions/0001/catalog.json", "catalog.json"])
def test_export_catalog(built, tmp_path, victim, name):
    plant(tmp_path / "copy", name, victim)
    refused(lambda: export_catalog(built[0], str(tmp_path / "copy")), name)


@pytest.mark.parametrize("name", ["fetch.jsonl", "listings", "documents/0/a.json.gz.part"])
def test_fetch_corpus(tmp_path, victim, name):
    plant(tmp_path / "corpus", name, victim)
    refused(lambda: open_record(tmp_path / "corpus").__enter__(), name)


def test_a_part_of_a_file(tmp_path, victim):
    partial = PartialFile(tmp_path / "a.gz", RemoteFile(validator="1"))
    plant(tmp_path, partial.part.name, victim)
    refused(lambda: open_own_file(partial.part, os.O_WRONLY), partial.part.name)


@pytest.mark.parametrize(
    "name",
    [
        *("catalog.duckdb", "catalog.sql", "catalog.duckdb.wal"),
        *(".catalog.duckdb.7.tmp.wal", "TEMPORARY"),
    ],
)
def test_rebuild_replaces_links(built, tmp_path, victim, name):
    name = name.replace("TEMPORARY", temporary_of_killed(tmp_path / "catalog.sql").name)
    shutil.copytree(built[0], tmp_path / "catalog", ignore=shutil.ignore_patterns("work"))
    plant(tmp_path / "catalog", name, victim)
    assert rebuild_database(tmp_path / "catalog")["version"] == 1
    assert not (tmp_path / "catalog" / name).is_symlink()


@pytest.mark.parametrize("about", ["catalog", "run"])
def test_report_replaces_links(built, tmp_path, victim, about):
    page = tmp_path / "folder" / "report.html"
    for name in ("report.html", temporary_of_killed(page).name):
        plant(page.parent, name, victim)
    if about == "catalog":
        write_catalog_page(built[0], page)
    else:
        write_report([write_run(tmp_path / "run")], page)
    assert not page.is_symlink()
    assert "<html" in page.read_text()


@pytest.mark.parametrize("name", ["export.json", "data", "shard_00000.jsonl"])
def test_export_documents(built, tmp_path, victim, name):
    plant(tmp_path / "out", name, victim)
    with pytest.raises(UserError):
        export_documents(built[0], tmp_path / "out")


def test_export_documents_beside_a_link(built, tmp_path, victim):
    plant(tmp_path, temporary_of_killed(tmp_path / "out").name, victim)
    assert export_documents(built[0], tmp_path / "out").documents > 0
