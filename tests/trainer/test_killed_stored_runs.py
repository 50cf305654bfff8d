"""Runs in an S3 server, of which processes are killed while they put a checkpoint."""

import os
import re
import shutil
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_catalog import lease
from data_catalog.place import Place
from data_catalog.transfer.run_copy import local_run
from tests.helpers.object_store import ObjectStore, serving_objects
from tests.helpers.processes import run_in_process, train_in_processes
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import records, without_clock, write_config

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(900)]
DIES_IN = "0000000008-"  # in the names of the objects of a checkpoint
SETTINGS = ("--set", "training.steps=12", "--set", "checkpoint.keep=1")
SHARDED = ("--set", "training.parallel=fsdp2")


def train_and_die(environment: Mapping[str, str], words: list[str], operation: int) -> int:
    """Train, and kill this process before an operation on the store.

    Operations are counted from the first on an object of one checkpoint. 0 kills never.
    """
    from trainer.__main__ import main

    os.environ.update(environment)
    lease.LEASE_SECONDS = 4.0
    repeat, lock, count = Place._repeat, threading.Lock(), 0

    def counting(place: Place, *arguments: Any, **options: Any) -> Any:
        nonlocal count
        with lock:
            count += DIES_IN in place.url or count > 0
            if count and count == operation:
                os.kill(os.getpid(), signal.SIGKILL)
        return repeat(place, *arguments, **options)

    Place._repeat = counting  # type: ignore[method-assign]
    return main(words)


def run_machines(
    folder: Path, environment: Mapping[str, str], words: list[str], operations: list[int]
) -> None:
    """Train with a process on each of several machines, and write how each ended."""
    from tests.helpers.forked import ended, fork

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    for rank, operation in enumerate(operations):
        own = {**environment, "XDG_CACHE_HOME": str(folder / f"disk-{rank}")}
        if len(operations) > 1:
            own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": str(rank)}
            own |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": str(len(operations))}
        children.append(fork(partial(train_and_die, own, words, operation)))
    (folder / "ended").write_text(" ".join(map(str, ended(children))))


class Machines:
    """A run in the store, and machines that share nothing else."""

    def __init__(self, store: ObjectStore, folder: Path, own: Path) -> None:
        self.store, self.folder, self.own = store, folder, own
        self.place = Place(f"s3://corpora/{own.name}")
        config = write_config(own, folder / "catalog", own / "stored")
        text = config.read_text()
        config.write_text(text.replace(f'"{own / "stored"}"', f'"{self.place}"'))
        self.config = config

    def train(self, *operations: int, settings: tuple[str, ...] = ()) -> list[int]:
        """Train on machines with empty disks. Return the codes that their processes end with."""
        for disk in self.own.glob("disk-*"):
            shutil.rmtree(disk)
        environment = {name: os.environ[name] for name in os.environ if name.startswith("AWS_")}
        words = [str(self.config), *SETTINGS, *settings]
        run_in_process(run_machines, self.own, environment, words, list(operations))
        return [int(code) for code in (self.own / "ended").read_text().split()]

    def committed(self) -> list[int]:
        names = (self.place / "checkpoints").names()
        return [int(name[:10]) for name in names if name.endswith(".json")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ObjectStore, Path]]:
    """A store, and the folder with a catalog and local runs of one and two processes on it."""
    folder = tmp_path_factory.mktemp("killed")
    write_tiny_catalog(folder / "catalog")
    for name, world, settings in (("one", 1, ()), ("two", 2, SHARDED)):
        config = write_config(folder, folder / "catalog", folder / name)
        train_in_processes(config, *SETTINGS, *settings, world=world)
    with serving_objects() as store:
        yield store, folder


@pytest.fixture
def machines(served: tuple[ObjectStore, Path], tmp_path: Path) -> Machines:
    served[0].requests.clear()
    return Machines(*served, tmp_path)


def numbers(run: Path) -> list[object]:
    return [
        *(without_clock(records(run, kind)) for kind in ("train", "eval", "update", "final")),
        pq.read_table(run / "weights.parquet").to_pylist(),
    ]


# The first 7 operations put files, 8 to 10 confirm them and the lease, 11 commits, 12 and 13 put
# copies for readers, and those after remove the checkpoint before.
@pytest.mark.parametrize("operation", [1, 4, 7, 8, 10, 11, 12, 13, 15, 17, 20])
def test_a_process_that_is_killed_while_it_puts_a_checkpoint(
    machines: Machines, operation: int
) -> None:
    assert machines.train(operation) == [-signal.SIGKILL]
    assert {4, 8} & set(machines.committed())
    if operation < 9:
        assert machines.committed() == [4]
    assert machines.train(0) == [0]
    with local_run(machines.place) as run:
        assert numbers(run) == numbers(machines.folder / "one")
    assert machines.committed() == [12]
    prefixes = {name.partition("/")[0] for name in (machines.place / "checkpoints").sizes()}
    assert len(prefixes) == 2  # one checkpoint and its list


@pytest.mark.parametrize("dies", [0, 1])
def test_one_of_two_machines_is_killed_while_both_put_a_checkpoint(
    machines: Machines, dies: int
) -> None:
    codes = machines.train(*((2, 0) if dies == 0 else (0, 2)), settings=SHARDED)
    assert codes[dies] == -signal.SIGKILL
    assert codes[1 - dies] not in {0, 143}
    assert machines.committed() == [4]
    machines.store.requests.clear()
    assert machines.train(0, 0, settings=SHARDED) == [0, 0]
    with local_run(machines.place) as run:
        assert numbers(run) == numbers(machines.folder / "two")
    fetched = Counter(
        path.rpartition("/")[2][:23]
        for kind, path, part in machines.store.requests
        if kind == "GET" and part is None and re.search(r"0000000004-\w+/shards/", path)
    )
    # The first file of a process has single numbers, and the second a part of the tensors.
    assert {name[-2:]: count for name, count in fetched.items()} == {"01": 2, "02": 1}
    assert fetched.keys() > {"shard-00001-model-00002", "shard-00002-model-00002"}


def test_one_machine_continues_the_run_of_two(machines: Machines) -> None:
    codes = machines.train(9, 0, settings=SHARDED)
    assert codes[0] == -signal.SIGKILL
    assert machines.train(0, settings=SHARDED) == [0]
    with local_run(machines.place) as run:
        steps = [record["step"] for record in records(run, "train")]
        worlds = [len(record["batch"]) for record in records(run, "train")]
        assert steps == list(range(1, 13))
        assert worlds == sorted(worlds, reverse=True)
        assert (worlds[3], worlds[-1]) == (2, 1)
