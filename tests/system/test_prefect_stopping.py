"""Ctrl-C and SIGTERM: a command ends promptly, leaves no processes behind, and can be resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_catalog.format.manifest import read_manifest
from data_catalog.settings import load, parse
from tests.flows.cli.test_main import toml
from tests.helpers.processes import train_in_processes
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import ROOT, finish, records, without_clock, write_config

# A build whose second stage takes ten minutes. Background jobs must opt in to Ctrl-C.
SLOW_BUILD = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import pipeline.run

def judge_part(*arguments):
    print("working", flush=True)
    time.sleep(600)

pipeline.run.judge_part = judge_part
from flows.cli.main import main
main()
"""
WITH_CTRL_C = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from flows.cli.main import main
main()
"""


def start(script, *arguments):
    """Start a command that uses the Prefect server of the tests, as from a terminal."""
    from prefect.settings import PREFECT_API_URL

    environment = {
        **os.environ,
        "PREFECT_API_URL": PREFECT_API_URL.value(),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    words = [sys.executable, "-c", script, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        words, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def stop(process, number):
    """Send a signal. As on a terminal, Ctrl-C goes to all processes of the command."""
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)


def latest_state(flow):
    """Return the state of the newest run of a flow."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter
    from prefect.client.schemas.sorting import FlowRunSort

    named = FlowFilter.model_validate({"name": {"any_": [flow]}})
    [run] = get_client(sync_client=True).read_flow_runs(
        flow_filter=named, limit=1, sort=FlowRunSort.START_TIME_DESC
    )
    return run.state.name


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_build_stopped_within_a_part_can_be_resumed(
    built, tmp_path, prefect_server, number, code
):
    from flows.build import build
    from pipeline.config import Build

    settings = {**built[1], "out": str(tmp_path / "catalog")}
    config = tmp_path / "build.toml"
    config.write_text(toml(settings))
    process = start(SLOW_BUILD, "build", config)
    # Two threads may print at once, so that one line has both words.
    if not any("working" in line for line in process.stdout):
        pytest.fail(process.stderr.read())
    stop(process, number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert latest_state("build") == "Crashed"
    done = {
        path: path.stat().st_mtime_ns
        for path in (tmp_path / "catalog" / "work").glob("*/*/part.json")
    }
    assert {path.parts[-3] for path in done} == {"source"}
    build(parse(Build, settings, "test"))
    # Finished parts are not repeated.
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert read_manifest(tmp_path / "catalog").fingerprint == read_manifest(built[0]).fingerprint


def trainers(folder):
    """Return the trainer processes that were started for a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"trainer" in words and int(process.parent.name) != os.getpid():
            environment = (process.parent / "environ").read_bytes()
            found += (
                [process.parent.name] if f"STOPPING_TEST={folder}".encode() in environment else []
            )
    return found


def step(out):
    try:
        return max((record["step"] for record in records(out, "train")), default=0)
    except (OSError, ValueError):  # missing, or the last line is incomplete
        return 0


@pytest.mark.skipif(not Path("/proc/self/environ").is_file(), reason="processes are found in /proc")
@pytest.mark.parametrize(
    ("number", "code", "processes"),
    [
        (signal.SIGINT, 130, 1),
        pytest.param(signal.SIGTERM, 143, 1, marks=pytest.mark.slow),
        # torchrun would pass Ctrl-C on unchanged.
        pytest.param(signal.SIGINT, 130, 2, marks=pytest.mark.slow),
        # The trainer must notice that the flow was killed.
        pytest.param(signal.SIGKILL, -9, 2, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_training_saves_a_checkpoint_and_can_be_resumed(
    tmp_path, prefect_server, monkeypatch, number, code, processes
):
    from flows.train import train
    from trainer.config import Train

    monkeypatch.setenv("STOPPING_TEST", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    catalog = write_tiny_catalog(tmp_path / "catalog")
    few = (
        "--set",
        "training.steps=120",
        "--set",
        "checkpoint.every_steps=1000",
        "--set",
        "evaluation.every_steps=0",
    )
    whole, config = (write_config(tmp_path, catalog, tmp_path / name) for name in ("whole", "run"))
    if processes == 1:
        train_in_processes(whole, *few)
    else:
        finish(whole, *few, processes=processes)
    process = start(WITH_CTRL_C, "train", config, *few, "--processes", processes)
    while step(tmp_path / "run") < 3:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    stop(process, number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    if number == signal.SIGKILL:
        while trainers(tmp_path):
            time.sleep(0.1)
    else:
        assert latest_state("train") == "Crashed"
    assert trainers(tmp_path) == []
    reached = step(tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / f"{reached:010d}").is_dir()
    assert reached < 120
    assert Path(train(load(Train, config, few[1::2]), processes)) == tmp_path / "run"
    for kind in ("train", "update", "eval"):
        assert without_clock(records(tmp_path / "run", kind)) == without_clock(
            records(tmp_path / "whole", kind)
        )


def threads(process):
    return list((process / "task").iterdir())


def test_a_process_ends_with_its_killed_parent():
    script = """
import os, subprocess, sys, time
sleep = ["timeit", "-n", "1", "-r", "1", "import time; time.sleep(600)"]
child = subprocess.Popen([sys.executable, "-m", "flows.parent_watch", str(os.getpid()), *sleep])
print(child.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    child = Path("/proc") / parent.stdout.readline().strip()
    # The child becomes the program first; then one of its threads watches the parent.
    while b"parent_watch" not in (child / "cmdline").read_bytes() or len(threads(child)) < 2:
        time.sleep(0.01)
    assert child.exists()
    parent.kill()
    parent.communicate()
    while child.exists() and b"parent_watch" in (child / "cmdline").read_bytes():
        time.sleep(0.05)
