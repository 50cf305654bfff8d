"""Launch the trainer as a process of its own: a worker that runs flows needs no torch, and a crash there cannot take it down."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Annotated, Any, Literal

from prefect import flow, tags, task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from data_catalog.errors import TrainingError, UserError
from data_catalog.format.manifest import read_manifest
from data_catalog.suggest import suggestion
from flows.artifacts import show_runs, stage_progress
from flows.events import emit_run_finished, tag_flow_run
from flows.pages.run import write_report
from flows.progress import console, progress_bar
from flows.runners import worth_a_retry
from trainer.config import Train

POLL_SECONDS = 0.5
REFUSAL_PREFIX = "clustermix: "  # how the trainer begins a sentence for the user
FAILURE_PREFIX = "clustermix: failed: "  # and one on what is not their fault
TORCHRUN_GRACE_SECONDS = "600"  # that torchrun leaves its processes for the step under way and a checkpoint; its own default is 30

ProcessCount = Annotated[int, Field(ge=1)]
AcceptedChange = Literal["config", "catalog", "tokenizer"]


@flow(name="train", flow_run_name="train {config.out}")
def train(
    config: Train, processes: ProcessCount = 1, accept: tuple[AcceptedChange, ...] = ()
) -> str:
    """Train on a built catalog and write the run's page, RUN/report.html; return the run's folder.

    A run that was stopped goes on from its last checkpoint.

    Args:
        config: What to train, on what, how. Paths are taken from the folder that the flow runs in.
        processes: One process a GPU, or CPU processes.
        accept: Go on with a begun run although this has changed.

    Raises:
        UserError: the config or the catalog it names is not usable, or the trainer refused to go on.
        TrainingError: the trainer's process failed, again after two more attempts from its last checkpoint.
    """
    check_training(config)
    tag_flow_run("clustermix", "train", config.catalog.name, config.mixture.mixer)
    with tags(config.catalog.name):
        launch.with_options(task_run_name=f"train {config.mixture.mixer}")(
            config, processes, accept
        )
    show_runs(
        f"run-{config.out.name}",
        [config.out],
        write_report([config.out], config.out / "report.html", config.catalog),
    )
    emit_run_finished(config.out)
    return str(config.out)


@task(
    tags={"clustermix", "clustermix-train"},
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=worth_a_retry,
    cache_policy=NO_CACHE,
)
def launch(config: Train, processes: int, accept: Sequence[str]) -> None:
    """The trainer, from its start or its last checkpoint to the end of the run. Told to stop, it saves a checkpoint first."""
    metrics = config.out / "metrics.jsonl"
    with (
        TemporaryDirectory(prefix="clustermix-") as folder,
        (Path(folder) / "output").open("w+") as output,
    ):
        resolved = Path(folder) / "config.toml"
        resolved.write_text(config_as_toml(config), encoding="utf-8")
        process = start_trainer(trainer_command(resolved, processes, accept), output)
        try:
            with progress_bar(f"train {config.mixture.mixer}", config.steps, "steps") as advance:
                shown, ended, tell = 0, False, stage_progress("train", config.steps)
                while not ended:
                    ended = has_ended(process)  # first: what it wrote last is read too
                    step, note = _latest(metrics)
                    advance(max(step - shown, 0), note)
                    tell(step, note)
                    shown = max(step, shown)
        finally:
            if process.poll() is None:
                console.print(
                    "stopping: the trainer finishes its step and saves a checkpoint",
                    highlight=False,
                )
                process.terminate()
                process.wait()
        if process.returncode:
            output.seek(0)
            _raise(output.read())


def trainer_command(config: Path, processes: int, accept: Sequence[str] = ()) -> list[str]:
    """`python -m trainer CONFIG`, or `torchrun -m trainer CONFIG` for several processes; with this Python, and tied to this process."""
    torchrun = (
        ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
        if processes > 1
        else []
    )
    changed = [word for what in accept for word in ("--accept", str(what))]
    return [sys.executable, "-m", "flows.parent_watch", *torchrun, "trainer", str(config), *changed]


def start_trainer(arguments: Sequence[str], output: IO[Any]) -> "subprocess.Popen[str]":
    """In a process group of its own: Ctrl-C on a terminal is for us, and the trainer gets a SIGTERM, which it obeys with a checkpoint."""
    environment = {"PET_SHUTDOWN_TIMEOUT": TORCHRUN_GRACE_SECONDS, **os.environ}
    return subprocess.Popen(
        arguments,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
        env=environment,
    )


def has_ended(process: "subprocess.Popen[str]") -> bool:
    """Wait a moment for it."""
    try:
        process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def config_as_toml(config: Train) -> str:
    """A resolved config as the trainer's process reads it: a line a value. A JSON string, list, number or truth value is TOML too."""

    def lines(tree: dict[str, Any], path: str) -> list[str]:
        found = []
        for name, value in tree.items():
            if isinstance(value, dict):
                found += lines(value, f"{path}{name}.")
            elif value is not None:  # which is the default wherever it may stand
                text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
                found.append(f"{path}{name} = {text}")
        return found

    return "\n".join(lines(config.model_dump(mode="json"), "")) + "\n"


def _raise(output: str) -> None:
    lines = [line for line in output.splitlines() if line.strip()] or ["it said nothing"]
    if failed := [
        line.removeprefix(FAILURE_PREFIX) for line in lines if line.startswith(FAILURE_PREFIX)
    ]:
        raise TrainingError(f"the trainer failed: {failed[0]}\n{output[-4000:]}")
    if refusals := [
        line.removeprefix(REFUSAL_PREFIX) for line in lines if line.startswith(REFUSAL_PREFIX)
    ]:
        raise UserError(refusals[0])
    raise TrainingError(f"the trainer failed: {lines[-1]}\n{output[-4000:]}")


def check_training(settings: Train) -> None:
    """Refuse before a process is started.

    Raises:
        UserError: no catalog there, or it lacks the target or the level.
    """
    manifest = read_manifest(settings.catalog, settings.data.version)
    if settings.target not in manifest["targets"]:
        hint = suggestion(settings.target, manifest["targets"], "targets there")
        raise UserError(f"target {settings.target}: not in {settings.catalog}; {hint}")
    level = settings.mixture.level
    if level is not None and level not in manifest["granularities"]:
        raise UserError(
            f"mixture.level {level}: {settings.catalog} has levels {manifest['granularities']}"
        )


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
