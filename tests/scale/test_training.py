"""A training of three machines that share nothing but an object store, which all may die.

The catalog and the run are in the store. Machines die with their disks, and come back with empty
ones. The run ends with the draws and, up to rounding, the losses of one process without faults.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest

from tests.helpers.tiny_training import CONFIG
from tests.scale.machines import Machine, missing_permission
from tests.scale.stored import OUT, Store, plain_loop

pytestmark = [
    pytest.mark.scale,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(missing_permission()), reason=missing_permission() or "-"),
]
RUNS = "s3://scale/runs"
PORT = 29500
STEPS = 180
# What dies once a checkpoint of the step is in the store.
DEATHS = {20: "machine", 60: "store", 100: "first machine"}


class Training:
    """One training on some machines. The first one has the rendezvous."""

    def __init__(self, made: list[Machine], out: str, logs: Path) -> None:
        self.made, self.out, self.logs = made, out, logs
        self.commands: dict[str, Any] = {}
        self.system = fsspec.filesystem("s3")
        text = CONFIG.replace('target = "spe"', 'target = "space"').replace(
            "steps = 28", f"steps = {STEPS}\nparallel = 'fsdp2'"
        )
        text = text.replace("every_steps = 14", "every_steps = 90")
        text = text.replace("every_steps = 4", "every_steps = 20")
        self.config = f'catalog = "{OUT}"\nout = "{out}"\n{text}'

    def start(self, machine: Machine) -> None:
        words = "clustermix train train.toml"
        if len(self.made) > 1:
            words += f" --nodes 1:{len(self.made)} --rdzv {self.made[0].address}:{PORT}"
        script = f'printf %s "$1" > train.toml; exec {words}'
        # The machines' names have no address.
        variable = f"GLOO_SOCKET_IFNAME={machine.name}i"
        command = ["env", variable, "bash", "-c", script, "_", self.config]
        folder = Path("/tmp/training") / machine.name
        log = self.logs / f"train-{machine.name}.log"
        self.commands[machine.name] = machine.popen(command, folder, log)

    def start_missing(self) -> None:
        """Start the command where it is not running, as an operator or a scheduler does."""
        for machine in self.made:
            command = self.commands.get(machine.name)
            if command is None or command.poll() is not None:
                self.start(machine)

    def finished(self) -> bool:
        """Return whether the list of the run's files, which is put last, has a model."""
        self.system.invalidate_cache()
        try:
            files = self.read("checksums.json")
        except OSError:
            return False
        return b"model/model.safetensors" in files

    def step(self) -> int:
        """Return the step of the newest checkpoint."""
        self.system.invalidate_cache()
        try:
            names = self.system.glob(f"{self.out}/checkpoints/*.json")
        except OSError:
            return 0  # the store is starting
        return max((int(Path(name).name.split("-")[0]) for name in names), default=0)

    def to_the_end(self, deaths: dict[int, Callable[[], None]]) -> None:
        end = monotonic() + 840
        while not self.finished():
            if monotonic() > end:
                raise TimeoutError(f"not finished, at step {self.step()}")
            self.start_missing()
            for step in [step for step in deaths if step <= self.step()]:
                deaths.pop(step)()
            sleep(1)

    def read(self, name: str) -> bytes:
        content: bytes = self.system.cat_file(f"{self.out}/{name}")
        return content


def power_off(machine: Machine) -> None:
    machine.stop()
    machine.start()


def test_a_training_survives_the_death_of_everything(
    cluster: tuple[list[Machine], Store], settings: dict[str, Any], folder: Path
) -> None:
    (_, *made), store = cluster
    if not fsspec.filesystem("s3").exists(f"{OUT}/catalog.json"):  # this test runs alone
        plain_loop({**settings, "out": OUT}, folder)
    alone = Training(made[:1], f"{RUNS}/alone", folder)
    alone.to_the_end({})
    several = Training(made, f"{RUNS}/several", folder)
    dead: list[str] = []

    def dies(name: str) -> Callable[[], None]:
        def kill() -> None:
            dead.append(name)
            match name:
                case "machine":
                    power_off(made[1])
                case "first machine":
                    power_off(made[0])
                case _:
                    store.restart()

        return kill

    several.to_the_end({step: dies(name) for step, name in DEATHS.items()})
    assert dead == list(DEATHS.values())
    usage = [pq.read_table(io.BytesIO(run.read("usage.parquet"))) for run in (alone, several)]
    assert usage[1].equals(usage[0])
    assert losses(several) == pytest.approx(losses(alone), rel=1e-3)


def losses(run: Training) -> list[float]:
    """Return the losses of the evaluations after the last step."""
    rows = [json.loads(line) for line in run.read("metrics.jsonl").splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "eval" and row["step"] == STEPS]
