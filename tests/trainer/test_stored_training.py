"""A run whose catalog is on an S3 server has the numbers of one with a local catalog."""

import json
import os
import shutil
from pathlib import Path

import pytest

from data_catalog.errors import UserError
from data_catalog.transfer.copy import export_catalog
from tests.helpers.object_store import serving_objects
from tests.helpers.processes import train_in_processes
from tests.helpers.stored_catalog import write_whole_catalog
from tests.helpers.tiny_training import records, tiny_config, without_clock, write_config
from trainer.config import Train
from trainer.loop import train
from trainer.preview import preview
from trainer.run import Run

URL = "s3://corpora/catalog"
SHORT = {"training": {"steps": 12}, "evaluation": {"every_steps": 6}}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A store with a catalog, and the folder with the catalog and a run on it."""
    folder = tmp_path_factory.mktemp("stored")
    write_whole_catalog(folder / "catalog")
    assert train(tiny_config(folder / "catalog", folder / "local", **SHORT))
    with serving_objects() as store:
        export_catalog(folder / "catalog", URL)
        yield store, folder


@pytest.fixture
def remote(served, tmp_path, monkeypatch):
    store, folder = served
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store.refused = store.cut_every = store.slow_every = 0
    store.requests.clear()
    return store, folder


def numbers(run: Path) -> list:
    return [without_clock(records(run, kind)) for kind in ("train", "eval", "update")]


def on_store(folder: Path) -> Path:
    """Return the config of a run on the store, like that of a local run."""
    config = write_config(folder, Path("there"), folder / "stored")
    config.write_text(config.read_text().replace('"there"', f'"{URL}"'))
    return config


@pytest.mark.slow
def test_a_run_on_a_store_is_identical_under_faults(remote, tmp_path):
    store, folder = remote
    store.refused, store.cut_every = 2, 5
    assert train(tiny_config(URL, tmp_path / "run", **SHORT))
    assert numbers(tmp_path / "run") == numbers(folder / "local")
    assert store.refusals > 10
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    local = json.loads((folder / "local" / "config.json").read_text())
    assert record["config"]["catalog"] == URL
    assert all(record[key] == local[key] for key in ("catalog", "fingerprint", "tokenizer"))


def test_a_cache_that_is_emptied_during_a_run_is_filled_again(remote, tmp_path, monkeypatch):
    _, folder = remote
    after_step, cache = Run.after_step, tmp_path / "cache" / "clustermix"

    def emptying(run: Run, stop: bool) -> None:
        if run.state.step in {3, 12}:
            for file in cache.rglob("train-*"):
                os.truncate(file, 0)
            shutil.rmtree(cache, ignore_errors=True)
        after_step(run, stop)

    monkeypatch.setattr(Run, "after_step", emptying)
    assert train(tiny_config(URL, tmp_path / "run", **SHORT))
    assert numbers(tmp_path / "run") == numbers(folder / "local")
    assert (tmp_path / "run" / "model" / "tokenizer.json").is_file()


def test_a_run_moves_to_the_store_and_small_files_are_repaired(remote, tmp_path):
    _, folder = remote
    out = tmp_path / "run"
    shutil.copytree(folder / "local", out)
    for late in (out / "checkpoints").iterdir():
        if late.name > "0000000008":
            shutil.rmtree(late)
    shutil.rmtree(out / "model")  # now as a run killed after step 8 leaves it
    config = tiny_config(URL, out, **SHORT)
    preview(config)
    [table] = (tmp_path / "cache").rglob("offsets.parquet")
    table.write_bytes(bytes(table.stat().st_size))
    assert train(config)
    assert numbers(out) == numbers(folder / "local")


def test_the_preview_says_what_is_fetched(remote, tmp_path):
    _, folder = remote
    result = preview(tiny_config(URL, tmp_path / "run", data={"cache_megabytes": 3}, **SHORT))
    sequence_bytes = 2 * 17
    assert 20 * sequence_bytes < result.fetched_bytes <= 12 * 6 * sequence_bytes
    assert (result.cache_bytes, str(result.catalog)) == (3_000_000, URL)
    assert preview(tiny_config(folder / "catalog", tmp_path / "run")).fetched_bytes is None


def test_a_url_without_a_catalog_is_one_sentence(remote, tmp_path):
    with pytest.raises(UserError, match=r"s3://corpora/none: no finished catalog"):
        preview(tiny_config("s3://corpora/none", tmp_path / "run"))
    with pytest.raises(UserError, match="version 7"):
        preview(tiny_config(URL, tmp_path / "run", data={"version": 7}))


def test_the_cache_is_no_part_of_a_runs_identity(tmp_path):
    plain = tiny_config(tmp_path, tmp_path)
    other = tiny_config(URL, tmp_path, data={"cache_megabytes": 1})
    assert plain.fingerprint() == other.fingerprint()
    assert Train.model_validate(other.model_dump(mode="json")) == other


@pytest.mark.slow
@pytest.mark.system
def test_two_processes_read_their_shares_of_each_batch(remote, tmp_path):
    store, folder = remote
    store.refused = 1
    train_in_processes(write_config(tmp_path, folder / "catalog", tmp_path / "two"), world=2)
    train_in_processes(on_store(tmp_path), world=2)
    assert numbers(tmp_path / "stored") == numbers(tmp_path / "two")
    names = {path.name for path in (tmp_path / "cache").rglob("train-*-?")}
    assert names == {"train-34-0", "train-34-1"}
