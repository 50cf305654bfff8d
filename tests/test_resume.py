"""A real process is killed, started again, and ends with the very same numbers as one that was never disturbed."""

import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from tests.tiny_catalog import write_tiny_catalog
from tests.tiny_training import finish, records, start, without_clock, write_config

LONG = ("--set", "training.steps=90")  # a step takes milliseconds: leaves time to send a signal


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    write_tiny_catalog(folder / "catalog")
    finish(write_config(folder, folder / "catalog", folder / "whole"), *LONG)
    return folder


def last_step(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_text().count('"kind": "train"') if path.is_file() else 0


def stop_after(config: Path, out: Path, step: int, number: signal.Signals) -> int:
    """Start the run, send a signal once it has logged `step`."""
    process = start(config, *LONG)
    deadline = time.monotonic() + 120
    while last_step(out) < step and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(number)
    process.communicate(timeout=60)
    return process.returncode


def compare(out: Path, whole: Path) -> None:
    for kind in ("train", "update", "eval", "final"):
        assert without_clock(records(out, kind)) == without_clock(records(whole, kind))  # losses, and a hash of each batch
    for name in ("weights.parquet", "usage.parquet"):
        assert pq.read_table(out / name).equals(pq.read_table(whole / name))
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (out, whole))
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_killed_twice_it_ends_the_same(folder: Path) -> None:
    out = folder / "killed"
    config = write_config(folder, folder / "catalog", out)
    assert stop_after(config, out, 6, signal.SIGKILL) == -signal.SIGKILL  # inside stage 1, past the checkpoint of step 4
    assert not (out / "model").exists()
    assert stop_after(config, out, 21, signal.SIGKILL) == -signal.SIGKILL  # just after the update of step 20
    assert not (out / "model").exists()
    finish(config, *LONG)
    compare(out, folder / "whole")


def test_sigterm_saves_and_the_run_goes_on_from_there(folder: Path) -> None:
    out = folder / "terminated"
    config = write_config(folder, folder / "catalog", out)
    assert stop_after(config, out, 3, signal.SIGTERM) == 143
    stopped = last_step(out)
    assert [path.name for path in sorted((out / "checkpoints").iterdir())][-1] == f"{stopped:010d}"
    finish(config, *LONG)
    compare(out, folder / "whole")
