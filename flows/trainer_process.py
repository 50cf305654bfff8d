"""The trainer as a separate process, so that its parent needs no torch and survives its crash."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Annotated, Any, Literal

from pydantic import Field

from data_catalog.errors import TrainingError, UserError
from flows.interrupt import orderly_stop
from flows.nodes import Nodes, launcher_options
from flows.progress import progress_bar, working
from trainer.config import Train

POLL_SECONDS = 0.5
WARNING_PREFIX = "WARNING "  # of the trainer's log
REFUSAL_PREFIX = "clustermix: "  # of the trainer's messages about invalid requests
FAILURE_PREFIX = "clustermix: failed: "  # of its messages about failures
# Time for torchrun's processes to finish a step and save a checkpoint. The default is 30 s.
TORCHRUN_GRACE_SECONDS = "600"

logger = logging.getLogger(__name__)

ProcessCount = Annotated[int, Field(ge=1)]
AcceptableChange = Literal["config", "catalog", "tokenizer"]
OnStep = Callable[[int, str], None]


def run_trainer(
    config: Train,
    processes: int,
    accept: Sequence[str] = (),
    verify: bool = True,
    threads: int | None = None,
    nodes: Nodes | None = None,
    on_step: OnStep = lambda _step, _note: None,
) -> None:
    """Run the trainer to the end of the run. When stopped, it saves a checkpoint first.

    Args:
        config: The training.
        processes: Number of training processes.
        accept: Changes that the run may resume with.
        verify: Compare the catalog's files with their checksums.
        threads: Number of threads of each process, for a run that shares the processor with others.
            Its progress is then not shown. None: all cores, and the progress is shown.
        nodes: The machines of the run. None: this machine.
        on_step: Called with the latest step and a note while the trainer runs.

    Raises:
        UserError: The trainer refused the request.
        TrainingError: The trainer failed.
    """
    with (
        TemporaryDirectory(prefix="clustermix-") as folder,
        (Path(folder) / "output").open("w+", encoding="utf-8", errors="replace") as output,
    ):
        resolved = Path(folder) / "config.toml"
        resolved.write_text(config_as_toml(config), encoding="utf-8")
        with orderly_stop() as stop_requested:
            arguments = trainer_command(resolved, processes, accept, verify, nodes)
            process = start_trainer(arguments, output, threads)
            try:
                if threads is None:
                    warnings = _Warnings(output.name)
                    _show_progress(process, config, warnings, stop_requested, on_step)
                else:
                    while not has_ended(process) and not stop_requested():
                        pass
            finally:
                _stop(process)
        if process.returncode:
            output.seek(0)
            _raise(output.read())


def _show_progress(
    process: "subprocess.Popen[str]",
    config: Train,
    trainer_warnings: "_Warnings",
    stop_requested: Callable[[], bool],
    on_step: OnStep,
) -> None:
    """Show the steps and the warnings of a trainer until it ends, or until it has to."""
    metrics = config.folder / "metrics.jsonl"
    with progress_bar(f"train {config.mixture.mixer}", config.steps, "steps") as advance:
        displayed, ended = 0, False
        while not ended and not stop_requested():
            ended = has_ended(process)  # before reading, to read its last record too
            trainer_warnings.show()
            step, note = _latest(metrics)
            advance(max(step - displayed, 0), note)
            on_step(step, note)
            displayed = max(step, displayed)


class _Warnings:
    """The warnings in the growing output of a trainer, each of which is shown once."""

    def __init__(self, output: str) -> None:
        self._output, self._shown = Path(output), 0

    def show(self) -> None:
        """Log the warnings of all complete lines that are new."""
        with self._output.open("rb") as file:
            file.seek(self._shown)
            new = file.read().rpartition(b"\n")[0]
        if new:
            self._shown += len(new) + 1
            for line in new.decode(errors="replace").splitlines():
                if line.startswith(WARNING_PREFIX):
                    logger.warning("%s", line.removeprefix(WARNING_PREFIX))


def _stop(process: "subprocess.Popen[str]") -> None:
    """Let a trainer that is still running finish its step and save a checkpoint."""
    if process.poll() is None:
        process.terminate()
        with working("Stopping: the trainer finishes its current step and saves a checkpoint."):
            process.wait()


def trainer_command(
    config: Path,
    processes: int,
    accept: Sequence[str] = (),
    verify: bool = True,
    nodes: Nodes | None = None,
) -> list[str]:
    """Return the command line of the trainer.

    It is `python -m trainer CONFIG`, with torchrun for several processes. The trainer uses this
    Python and stops when this process dies. torchrun creates folders beside the config.
    """
    torchrun = (
        [
            *("torch.distributed.run", *launcher_options(nodes), f"--nproc-per-node={processes}"),
            f"--log-dir={config.parent}",  # otherwise it leaves a temporary folder
            *("-m", "flows.parent_watch", "0"),  # its processes end with torchrun
        ]
        if processes > 1 or nodes is not None
        else []
    )
    accepted = [word for change in accept for word in ("--accept", change)]
    return [
        sys.executable,
        "-m",
        "flows.parent_watch",
        str(os.getpid()),
        *torchrun,
        "trainer",
        str(config),
        *accepted,
        *([] if verify else ["--no-verify"]),
    ]


def start_trainer(
    arguments: Sequence[str], output: IO[Any], threads: int | None = None
) -> "subprocess.Popen[str]":
    """Start the trainer in a process group of its own.

    Ctrl-C on a terminal then only reaches this process, which sends the trainer a SIGTERM. The
    trainer saves a checkpoint on a SIGTERM.
    """
    environment = {"PET_SHUTDOWN_TIMEOUT": TORCHRUN_GRACE_SECONDS, **os.environ}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    return subprocess.Popen(
        arguments,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
        env=environment,
    )


def has_ended(process: "subprocess.Popen[str]") -> bool:
    """Wait up to `POLL_SECONDS` for the process, and return whether it has ended."""
    try:
        process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def config_as_toml(config: Train) -> str:
    """Return a config as TOML, one line per value.

    JSON strings, lists, numbers and booleans are also valid TOML.
    """

    def lines(tree: dict[str, Any], path: str) -> list[str]:
        assignments = []
        for name, value in tree.items():
            if isinstance(value, dict):
                assignments += lines(value, f"{path}{name}.")
            elif value is not None:  # None is always the default
                text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
                assignments.append(f"{path}{name} = {text}")
        return assignments

    return "\n".join(lines(config.model_dump(mode="json"), "")) + "\n"


def _raise(output: str) -> None:
    lines = [line for line in output.splitlines() if line.strip()] or ["no output"]
    if failed := [
        line.removeprefix(FAILURE_PREFIX) for line in lines if line.startswith(FAILURE_PREFIX)
    ]:
        raise TrainingError(f"the trainer failed: {failed[0]}\n{output[-4000:]}")
    if refusals := [
        line.removeprefix(REFUSAL_PREFIX) for line in lines if line.startswith(REFUSAL_PREFIX)
    ]:
        raise UserError(refusals[0])
    raise TrainingError(f"the trainer failed: {lines[-1]}\n{output[-4000:]}")


def _latest(metrics: Path) -> tuple[int, str]:
    """Return the step of the newest training record, and its loss as text."""
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
