"""A build on three machines that share nothing but an object store, which all may die at any time.

The machines have the same process ids, other working folders, and no disk in common. The worker,
the command and the store are killed at three points each. The catalog is made from the same inputs
as that of a plain loop, and has the same documents.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import fsspec
import pytest

from data_catalog.format.manifest import read_manifest
from tests.helpers.repository import ROOT
from tests.helpers.tiny_corpus import write_corpus
from tests.scale.machines import HOST, Machine, machines, missing_permission, wait_until

pytestmark = [
    pytest.mark.scale,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(missing_permission()), reason=missing_permission() or "-"),
]
PORT, RAY_PORT = 9000, 6379
BUCKET, OUT = "scale", "s3://scale/catalogs/tiny"
WORK = Path("/tmp/work")
# What is killed once the first part of a stage is finished.
WORKERS_DIE_AT = ("source", "embed", "shard")
COMMAND_DIES_AT = ("quality", "assign", "describe")
STORE_DIES_AT = ("dedup", "tree", "sort")
PARTS = 24  # source files, so that stages take some seconds


class Store:
    """The server of objects. What it has answered survives its end."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.scale.store", HOST, str(PORT), str(self.journal)]
        with self.journal.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        wait_until(self._answers, 120, "the store does not answer")

    def _answers(self) -> bool:
        try:
            socket.create_connection((HOST, PORT), 1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scale")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[tuple[list[Machine], Store]]:
    """Yield the machine of the command, three others and the store."""
    environment = {
        **os.environ,  # variables of this kind of processor change the last bits of products
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{HOST}:{PORT}",
        "HF_HUB_OFFLINE": "1",
        "RAY_raylet_start_wait_time_s": "300",
        "RAY_agent_register_timeout_ms": "300000",
    }
    private = [Path("/home"), Path("/tmp"), Path("/dev/shm")]
    with machines(4, private, environment) as made, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        store = Store(folder / "journal")
        try:
            yield made, store
        finally:
            store.kill()


def upload_corpus(folder: Path) -> dict[str, Any]:
    """Put a corpus of `PARTS` files into the store. Return the config of its build."""
    config = write_corpus(folder, documents=40 * PARTS)
    lines = [
        line
        for path in sorted((folder / "corpus").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    system = fsspec.filesystem("s3")
    system.mkdir(BUCKET)
    for part in range(PARTS):
        text = "\n".join(lines[part::PARTS]) + "\n"
        system.pipe_file(f"{BUCKET}/corpus/part-{part:02d}.jsonl", text.encode())
    for path in (folder / "target").rglob("*"):
        if path.is_file():
            system.put_file(str(path), f"{BUCKET}/{path.relative_to(folder)}")
    targets = [{**config["targets"][0], "path": f"s3://{BUCKET}/target"}]
    source = {**config["source"], "path": f"s3://{BUCKET}/corpus"}
    return {**config, "source": source, "targets": targets}


def toml(value: Any) -> str:
    """Return a value in TOML. That of a string or a list of numbers is as in JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def document(config: dict[str, Any]) -> str:
    return "\n".join(f"{key} = {toml(value)}" for key, value in config.items())


def plain_loop(config: dict[str, Any]) -> Path:
    """Build a catalog in a plain loop, in a process of its own, and return its folder."""
    path = Path(config["out"]).with_suffix(".toml")
    path.write_text(document(config), encoding="utf-8")
    script = (
        "import sys; from pathlib import Path; from data_catalog.settings import load; "
        "from pipeline.config import Build; from pipeline.run import build; "
        "build(load(Build, Path(sys.argv[1])))"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, cwd=ROOT)
    return Path(config["out"])


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
        self.store.kill()
        sleep(2)
        self.store.start()

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
    cluster: tuple[list[Machine], Store], folder: Path
) -> None:
    made, store = cluster
    settings = upload_corpus(folder)
    plain = plain_loop({**settings, "out": str(folder / "plain")})
    run = Run(made, store, document({**settings, "out": OUT}), folder)
    run.start_head()
    for machine in run.workers:
        run.start_worker(machine)
    run.to_the_end()
    assert len(run.killed) == 9
    system = fsspec.filesystem("s3")
    system.invalidate_cache()
    found = json.loads(system.cat_file(f"{OUT}/catalog.json"))
    expected = read_manifest(plain)
    assert found["built_from"] == expected.built_from
    assert (found["documents"], found["tokens"]) == (expected.documents, expected.tokens)
    assert found["fingerprint"] == expected.fingerprint
    verify = run.workers[0].popen(
        ["clustermix", "verify", OUT], WORK / "verify", folder / "verify.log"
    )
    assert verify.wait() == 0, (folder / "verify.log").read_text()
