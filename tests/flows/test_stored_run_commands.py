"""Commands on a run in an S3 server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_catalog.place import Place
from tests.flows.cli.test_main import clustermix, refused
from tests.helpers.object_store import serving_objects
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import write_config
from trainer.loop import train

pytestmark = pytest.mark.system
RUN = Place("s3://corpora/runs/dga")
SETTINGS = ("--set", "training.steps=6")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The config of a finished run in a store that serves."""
    folder = tmp_path_factory.mktemp("stored")
    catalog = write_tiny_catalog(folder / "catalog")
    path = write_config(folder, catalog, folder / "dga")
    path.write_text(path.read_text().replace(str(folder / "dga"), str(RUN)))
    with serving_objects(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        from data_catalog.settings import load
        from trainer.config import Train

        assert train(load(Train, path, [SETTINGS[1]]))
        yield path


@pytest.mark.slow
def test_train_puts_a_run_and_its_page(config: Path) -> None:
    out = Place("s3://corpora/runs/other")
    done = clustermix("train", config, *SETTINGS, "--set", f"out={out}", "--json")
    assert done.returncode == 0, done.stderr
    assert "train dga: 6 of 6" in done.stderr
    row = json.loads(done.stdout)
    assert (row["folder"], row["page"]) == (str(out), f"{out}/report.html")
    assert (row["run"], row["steps"], row["finished"]) == ("other", 6, True)
    assert b"<html" in (out / "report.html").read()  # type: ignore[operator]
    assert (out / "model" / "model.safetensors").exists()
    dry = clustermix("train", config, *SETTINGS, "--dry-run")
    assert (dry.returncode, f"written to {RUN}" in dry.stdout) == (0, True)


def test_report_reads_runs_in_a_store(config: Path, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    assert clustermix("report", RUN, "--out", page).returncode == 0
    assert "dga" in page.read_text()
    there = clustermix("report", RUN, "--out", RUN / "again.html", "--json")
    assert json.loads(there.stdout)["about"] == "runs"
    assert (RUN / "again.html").size() == page.stat().st_size
    refused(clustermix("report", RUN / "none"), f"{RUN}/none: no catalog and no run here")


@pytest.mark.parametrize(
    "words",
    [
        ("verify", RUN),
        ("eval", RUN, "--limit", "1"),
        ("serve", RUN, "--port", "0"),
        ("replay", RUN, "--out", "replayed"),
    ],
    ids=lambda words: words[0],
)
def test_other_commands_refuse_a_run_in_a_store(config: Path, words: tuple[object, ...]) -> None:
    refused(clustermix(*words), str(RUN))


def test_an_experiment_needs_a_folder(config: Path) -> None:
    done = clustermix("experiment", config, "--variant", "natural")
    refused(done, "out: expected a path on this machine")
