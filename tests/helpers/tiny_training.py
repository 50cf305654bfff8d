"""Runs on the tiny catalog: small enough for seconds, with every feature of a large one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.helpers.repository import ROOT
from trainer.config import Train

CONFIG = """
target = "spe"
[model]
hidden_size = 32
layers = 2
heads = 2
[mixture]
kind = "hard"
prior = "even"
repetition = 0
pull = 0
scores = "clipped"
ema = 0.1
update_every_steps = 5
basis_sequences = 4
target_sequences = 8
[optimizer]
learning_rate = 0.01
warmup_steps = 3
[training]
steps = 28
batch_sequences = 6
micro_batch_sequences = 4
sequence_tokens = 16
log_every_steps = 1
[evaluation]
every_steps = 14
sequences = 8
[checkpoint]
every_steps = 4
"""


def write_config(folder: Path, catalog: Path, out: Path) -> Path:
    path = folder / f"{out.name}.toml"
    path.write_text(f'catalog = "{catalog}"\nout = "{out}"\n{CONFIG}')
    return path


def tiny_config(catalog: Path, out: Path, **changed: dict[str, Any]) -> Train:
    """Return the config above with changes, such as `training={"steps": 3}`."""
    import tomllib

    tree = tomllib.loads(CONFIG)
    for table, values in changed.items():
        tree[table] = {**tree.get(table, {}), **values} if isinstance(values, dict) else values
    return Train.model_validate({"catalog": catalog, "out": out, **tree})


def command(config: Path, *arguments: str, processes: int = 1) -> list[str]:
    start = (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        if processes > 1
        else []
    )
    return [sys.executable, *start, "-m", "trainer", str(config), *arguments]


def start(config: Path, *arguments: str, processes: int = 1) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command(config, *arguments, processes=processes),
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(config: Path, *arguments: str, processes: int = 1) -> None:
    process = start(config, *arguments, processes=processes)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors


def records(out: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [record for record in found if record["kind"] == kind]


CLOCK = ("data_share", "scoring_share", "mfu")  # and all that has seconds in its name


def without_clock(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            name: value
            for name, value in record.items()
            if "second" not in name and name not in CLOCK
        }
        for record in found
    ]
