"""A build on three machines that share nothing but an object store, which all may die at any time.

The machines have the same process ids, other working folders, and no disk in common. The worker,
the command and the store are killed at three points each. The catalog has the fingerprint of that
of a plain loop.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import fsspec
import pytest

from data_catalog.format.manifest import read_manifest
from tests.scale.machines import Machine, missing_permission
from tests.scale.stored import OUT, Store, document, plain_loop

pytestmark = [
    pytest.mark.scale,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(missing_permission()), reason=missing_permission() or "-"),
]
RAY_PORT = 6379
WORK = Path("/tmp/work")
# What is killed once the first part of a stage is finished.
WORKERS_DIE_AT = ("source", "embed", "shard")
COMMAND_DIES_AT = ("quality", "assign", "describe")
STORE_DIES_AT = ("dedup", "tree", "sort")


class Run:
    """The command on its machine, with its cluster, while pieces of it are killed."""

    def __init__(self, made: list[Machine], store: Store, config: str, logs: Path) -> None:
        self.head, *self.workers = made
        self.store, self.config, self.logs = store, config, logs
        self.system = fsspec.filesystem("s3")
        self.killed: list[str] = []

    def start_head(self) -> None:
        words = ["ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=0"]
        words += [f"--node-ip-address={self.head.address}", f"--port={RAY_PORT}"]
        words += ["--include-dashboard=false"]
        self.head.popen(words, WORK / "head", self.logs / "head.log")

    def start_worker(self, machine: Machine) -> None:
        words = ["clustermix", "worker", "--head", f"{self.head.address}:{RAY_PORT}", "--cpus=1"]
        machine.popen(words, WORK / machine.name, self.logs / f"{machine.name}.log")

    def start_command(self) -> "subprocess.Popen[bytes]":
        script = (
            'printf %s "$1" > build.toml; '
            f"exec clustermix build build.toml --cluster {self.head.address}:{RAY_PORT}"
        )
        words = ["bash", "-c", script, "_", self.config]
        return self.head.popen(words, WORK / "command", self.logs / "command.log")

    def reached(self, stage: str) -> bool:
        self.system.invalidate_cache()
        try:
            return bool(self.system.glob(f"{OUT}/work/{stage}/**/part.json"))
        except OSError:
            return False

    def kill_worker(self) -> None:
        """Kill all processes of a worker. The last one loses its machine, and its disks."""
        machine = self.workers.pop(0)
        if self.reached(WORKERS_DIE_AT[-1]):
            machine.stop()  # Ray may need five minutes to notice
            machine.start()
        else:
            machine.kill("ray")
        self.start_worker(machine)
        self.workers.append(machine)

    def kill_command(self) -> None:
        self.head.kill("build.toml")

    def kill_store(self) -> None:
        self.store.restart()

    def to_the_end(self) -> None:
        """Run the command until it succeeds, and kill what is due meanwhile."""
        due: list[tuple[str, str, Callable[[], object]]] = [
            *((stage, "worker", self.kill_worker) for stage in WORKERS_DIE_AT),
            *((stage, "store", self.kill_store) for stage in STORE_DIES_AT),
            *((stage, "command", self.kill_command) for stage in COMMAND_DIES_AT),
        ]
        end = monotonic() + 1680
        command = self.start_command()
        while monotonic() < end:
            for entry in [entry for entry in due if self.reached(entry[0])]:
                due.remove(entry)
                entry[2]()
                self.killed.append(f"{entry[1]} at {entry[0]}")
            if command.poll() is not None:
                if command.returncode == 0:
                    return
                sleep(2)  # the lease of a killed command has to end
                command = self.start_command()
            sleep(0.1)
        raise TimeoutError(f"not finished, killed: {self.killed}")


def test_a_build_survives_the_death_of_everything(
    cluster: tuple[list[Machine], Store], settings: dict[str, Any], folder: Path
) -> None:
    made, store = cluster
    plain_loop({**settings, "out": str(folder / "plain")}, folder)
    run = Run(made, store, document({**settings, "out": OUT}), folder)
    run.start_head()
    for machine in run.workers:
        run.start_worker(machine)
    run.to_the_end()
    assert len(run.killed) == 9
    system = fsspec.filesystem("s3")
    system.invalidate_cache()
    found = json.loads(system.cat_file(f"{OUT}/catalog.json"))
    expected = read_manifest(folder / "plain")
    assert found["built_from"] == expected.built_from
    assert (found["documents"], found["tokens"]) == (expected.documents, expected.tokens)
    assert found["fingerprint"] == expected.fingerprint
    verify = run.workers[0].popen(
        ["clustermix", "verify", OUT], WORK / "verify", folder / "verify.log"
    )
    assert verify.wait() == 0, (folder / "verify.log").read_text()
