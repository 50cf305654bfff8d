"""Launch the trainer as a process of its own: a worker that runs flows needs no torch, and a crash there cannot take it down."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

from prefect import flow

from data_catalog.errors import TrainingError, UserError
from data_catalog.manifest import read_manifest
from data_catalog.settings import load
from flows.progress import bar
from trainer.config import Train

POLL_SECONDS = 0.5
REFUSAL = "clustermix: "  # how the trainer begins a sentence for the user


def command(config: Path, overrides: Sequence[str], processes: int, accept: Sequence[str] = ()) -> list[str]:
    """`torchrun -m trainer CONFIG --set ...`, started with this Python."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "trainer"]
    changes = [("--set", override) for override in overrides] + [("--accept", what) for what in accept]
    return [*launcher, str(config), *(word for pair in changes for word in pair)]


@flow(name="train", flow_run_name="train {config}", validate_parameters=False)
def train(config: Path, overrides: Sequence[str] = (), processes: int = 1, accept: Sequence[str] = ()) -> str:
    """Train on a built catalog, showing progress from the run's metrics; returns the run's folder.

    Raises:
        UserError: the config or the catalog it names is not usable, or the trainer refused to go on.
        TrainingError: the trainer's process failed.
    """
    settings = load(Train, config, overrides)
    check(settings)
    metrics = settings.out / "metrics.jsonl"
    with TemporaryFile("w+") as output:
        process = subprocess.Popen(command(config, overrides, processes, accept), stdout=output, stderr=subprocess.STDOUT, text=True)
        try:
            with bar(f"train {settings.mixture.mixer}", settings.steps) as advance:
                shown = 0
                while process.poll() is None:
                    time.sleep(POLL_SECONDS)
                    step, note = _latest(metrics)
                    advance(max(step - shown, 0), note)
                    shown = max(step, shown)
                step, note = _latest(metrics)
                advance(max(step - shown, 0), note)
        finally:
            if process.poll() is None:
                process.terminate()  # the trainer saves a checkpoint
                process.wait()
        if process.returncode:
            output.seek(0)
            _raise(output.read())
    return str(settings.out)


def _raise(output: str) -> None:
    refusals = [line.removeprefix(REFUSAL) for line in output.splitlines() if line.startswith(REFUSAL)]
    if refusals:
        raise UserError(refusals[0])
    raise TrainingError(f"the trainer failed:\n{output[-4000:]}")


def check(settings: Train) -> None:
    """Refuse before a process is started.

    Raises:
        UserError: no catalog there, or it lacks the target or the level.
    """
    manifest = read_manifest(settings.catalog, settings.data.version)
    if settings.target not in manifest["targets"]:
        raise UserError(f"target {settings.target}: not in {settings.catalog}; targets there: {', '.join(manifest['targets']) or 'none'}")
    level = settings.mixture.level
    if level is not None and level not in manifest["granularities"]:
        raise UserError(f"mixture.level {level}: {settings.catalog} has levels {manifest['granularities']}")


def _latest(metrics: Path) -> tuple[int, str]:
    """Step and loss of the newest training record."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 20_000))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return 0, ""
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record.get("kind") == "train":
            return record["step"], f"loss {record['loss']:.3f}"
    return 0, ""
