"""Launchers of several machines, all on this one: a machine is killed, and one joins."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from data_catalog import UserError
from data_catalog.settings import parse
from flows.nodes import Nodes
from flows.trainer_process import trainer_command
from tests.helpers.processes import train_in_processes
from tests.helpers.repository import ROOT
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import records, write_config


def launch(config: Path, nodes: Nodes, log: Path) -> "subprocess.Popen[bytes]":
    """Start one process of a run with the command of `clustermix train --nodes`."""
    folder = log.with_suffix("")
    folder.mkdir()
    command = trainer_command(config, 1, nodes=nodes)
    command[command.index(f"--log-dir={config.parent}")] = f"--log-dir={folder}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, process_group=0
        )


def wait_for(out: Path, steps: int, *launchers: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 400
    metrics = out / "metrics.jsonl"
    while not (metrics.is_file() and metrics.read_bytes().count(b'"kind": "train"') >= steps):
        assert all(launcher.poll() is None for launcher in launchers)
        assert time.monotonic() < until
        time.sleep(0.1)


def kill_all(launcher: "subprocess.Popen[bytes]") -> None:
    """Kill a launcher and its processes, as a machine that loses its power."""
    children = subprocess.run(
        ["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    for process in (launcher.pid, *map(int, children)):
        os.kill(process, signal.SIGKILL)
    launcher.wait()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_goes_on_without_a_machine_that_is_killed(tmp_path: Path) -> None:
    write_tiny_catalog(tmp_path / "catalog")
    config = write_config(tmp_path, tmp_path / "catalog", tmp_path / "run")
    text = config.read_text().replace("steps = 28", 'steps = 400\nparallel = "fsdp2"')
    config.write_text(text.replace("every_steps = 4\n", "every_steps = 10\n"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    nodes = Nodes(count="1:2", rdzv=place)
    first = launch(config, nodes, tmp_path / "first.log")
    second = launch(config, nodes, tmp_path / "second.log")
    try:
        wait_for(tmp_path / "run", 25, first, second)
        kill_all(second)
        assert first.wait(timeout=600) == 0, (tmp_path / "first.log").read_text()
    finally:
        for launcher in (first, second):
            if launcher.poll() is None:
                kill_all(launcher)
    steps = records(tmp_path / "run", "train")
    assert [record["step"] for record in steps] == list(range(1, 401))
    worlds = [len(record["batch"]) for record in steps]
    assert worlds == sorted(worlds, reverse=True)
    assert worlds.count(2) >= 20
    assert worlds[-1] == 1
    alone = write_config(tmp_path, tmp_path / "catalog", tmp_path / "alone")
    train_in_processes(alone, "--set", "training.steps=400")
    losses = ([r["loss"] for r in records(tmp_path / n, "train")[:60]] for n in ("run", "alone"))
    np.testing.assert_allclose(*losses, rtol=1e-3)


@pytest.mark.parametrize(
    ("count", "rdzv"), [("0", "a:1"), ("2:", "a:1"), ("2", "head"), ("2", ":1")]
)
def test_invalid_nodes_are_refused(count: str, rdzv: str) -> None:
    with pytest.raises(UserError, match="count" if rdzv == "a:1" else "rdzv"):
        parse(Nodes, {"count": count, "rdzv": rdzv}, "--nodes")
