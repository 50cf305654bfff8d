"""A run in an S3 server has the numbers of a local one, whatever machine dies at what moment."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_catalog import UserError
from data_catalog import lease as leases
from data_catalog.lease import sole_lease
from data_catalog.place import Place
from data_catalog.transfer.run_copy import local_run
from tests.helpers.object_store import ObjectStore, serving_objects
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import records, tiny_config, without_clock
from trainer.config import Train
from trainer.loop import train
from trainer.run import Run

SHORT = {
    "training": {"steps": 12},
    "evaluation": {"every_steps": 6},
    "finetune": {"steps": 4, "batch_sequences": 3, "warmup_steps": 1},
}
LAST = 16


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ObjectStore, Path]]:
    """A store, and the folder with a catalog and a local run on it."""
    folder = tmp_path_factory.mktemp("stored")
    write_tiny_catalog(folder / "catalog")
    assert train(tiny_config(folder / "catalog", folder / "local", **SHORT))
    with serving_objects() as store:
        yield store, folder


class Machine:
    """A place in the store, and machines that train there, each with a disk of its own."""

    def __init__(self, store: ObjectStore, folder: Path, place: Place, own: Path) -> None:
        self.store, self.folder, self.place, self.own = store, folder, place, own
        self.local = folder / "local"

    def config(self, **changed: dict[str, object]) -> Train:
        return tiny_config(self.folder / "catalog", self.place.url, **{**SHORT, **changed})  # type: ignore[arg-type]

    def replace(self) -> None:
        """Go on with a machine with empty disks."""
        shutil.rmtree(self.own / "cache", ignore_errors=True)


@pytest.fixture
def machine(
    served: tuple[ObjectStore, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Machine:
    store, folder = served
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(leases, "LEASE_SECONDS", 2.0)
    store.refused = store.cut_every = store.slow_every = 0
    store.requests.clear()
    return Machine(store, folder, Place(f"s3://corpora/{tmp_path.name}"), tmp_path)


def numbers(run: Path) -> list[object]:
    return [
        *(without_clock(records(run, kind)) for kind in ("train", "eval", "update", "final")),
        pq.read_table(run / "weights.parquet").to_pylist(),
    ]


def committed(place: Place) -> list[int]:
    names = (place / "checkpoints").names()
    return [int(name[:10]) for name in names if name.endswith(".json")]


def require_same(machine: Machine) -> None:
    """Check that the run in the store is finished and has the numbers and files of the local."""
    with local_run(machine.place) as run:
        assert numbers(run) == numbers(machine.local)
        listed = json.loads((run / "checksums.json").read_bytes())["files"]
    here = json.loads((machine.local / "checksums.json").read_bytes())["files"]
    assert listed.keys() == here.keys()
    for name in ("model/model.safetensors", "pretrained/model.safetensors", "usage.parquet"):
        assert listed[name] == here[name]
    sizes = machine.place.sizes()
    assert all(sizes[name] == file["bytes"] for name, file in listed.items())
    prefixes = {
        name.split("/")[1].removesuffix(".json") for name in sizes if "checkpoints/" in name
    }
    assert [int(name[:10]) for name in sorted(prefixes)] == committed(machine.place) == [12, LAST]
    assert not [name for name in sizes if name.startswith("lease")]


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run fail after a step, as a machine that dies."""
    after_step = Run.after_step

    def failing(run: Run, stop: bool) -> None:
        after_step(run, stop)
        if run.state.step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "after_step", failing)


def test_a_run_in_a_store_is_that_of_a_folder(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 60.0)  # repeated requests take time
    machine.store.refused, machine.store.cut_every = 1, 7
    assert train(machine.config())
    require_same(machine)
    assert machine.store.refusals > 10
    [working] = (machine.own / "cache" / "clustermix" / "runs").glob("*/*")
    assert {path.name for path in working.iterdir()} == {".lock", "metrics.jsonl"}
    machine.store.requests.clear()
    machine.replace()
    assert train(machine.config())  # is finished
    assert all("lease" in path for path in machine.store.asked("PUT"))
    with pytest.raises(UserError, match=r"training.steps was 12 and is now 13"):
        train(machine.config(training={"steps": 13}))


@pytest.mark.parametrize("step", [3, 6, 13])
def test_a_run_continues_on_a_machine_with_an_empty_disk(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with monkeypatch.context() as patch:
        stop_at(step, patch)
        with pytest.raises(KeyboardInterrupt):
            train(machine.config())
    assert committed(machine.place)[-1:] == ([] if step < 4 else [step // 4 * 4])
    machine.replace()
    assert train(machine.config())
    require_same(machine)


def test_a_damaged_checkpoint_is_passed_over_and_kept(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        stop_at(9, patch)
        with pytest.raises(KeyboardInterrupt):
            train(machine.config())
    [name] = [name for name in (machine.place / "checkpoints").sizes() if "08-" in name][:1]
    folder = machine.place / "checkpoints" / name.split("/")[0].removesuffix(".json")
    size = (folder / "optimizer.pt").size()
    (folder / "optimizer.pt").write(bytes(size or 0))
    machine.replace()
    assert train(machine.config())
    assert "step 8 (optimizer.pt: checksum differs)" in caplog.text
    assert (folder / "optimizer.pt").size() == size
    with local_run(machine.place) as run:
        assert numbers(run) == numbers(machine.local)


def test_another_training_is_refused_and_a_dead_one_is_not_waited_for_long(
    machine: Machine,
) -> None:
    with sole_lease(machine.place, "another training", "Wait."):
        machine.own.joinpath("config.toml").write_text("")
        with pytest.raises(UserError, match=r"another training is running here, process \d+ on"):
            train(machine.config())
    lost = Place(f"{machine.place}-lost")
    text = {"host": "gone", "pid": 7, "holder": "x", "since": 0, "until": time.time() + 1.5}
    (lost / "lease-00000004.json").write(json.dumps(text).encode())
    begun = time.time()
    with sole_lease(lost, "another training", "Wait.", wait=True):
        assert time.time() >= text["until"] > begun
        assert lost.names() == ["lease-00000005.json"]


def test_a_checkpoint_is_not_committed_without_the_lease(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_step = Run.after_step

    def losing(run: Run, stop: bool) -> None:
        if run.state.step == 8:
            (machine.place / "lease-00000009.json").write(b"{}")
        after_step(run, stop)

    monkeypatch.setattr(Run, "after_step", losing)
    with pytest.raises(UserError, match=r"another process has taken it"):
        train(machine.config())
    assert committed(machine.place) == [4]


def test_something_else_at_the_url_is_refused(machine: Machine) -> None:
    (machine.place / "weights.bin").write(b"model")
    with pytest.raises(UserError, match=r"holds weights.bin and is not a run"):
        train(machine.config())
    (machine.place / "config.json").write(b'{"hidden_size": 3}')
    with pytest.raises(UserError, match=r"config.json: "):
        train(machine.config())
    assert committed(machine.place) == []
