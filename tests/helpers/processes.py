"""Processes forked from one that has finished the slow imports. Starting one takes milliseconds."""

import multiprocessing
import os
import subprocess
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from tests.helpers.repository import ROOT

_PRELOADED = [
    *("tests.helpers.forked", "tests.helpers.tiny_models", "data_catalog.verify"),
    *("flows.cli.app", "flows.pages.catalog", "flows.pages.run", "flows.run_check"),
]


def run_in_processes(work: Callable[..., None], world: int, *arguments: Any) -> None:
    """Call `work(rank, *arguments)` in `world` processes of one thread each, and wait for them.

    Raises:
        ProcessRaisedException: A process raised; the message holds its traceback.
    """
    start_server()
    torch.multiprocessing.start_processes(work, arguments, nprocs=world, start_method="forkserver")


def run_in_process(work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(*arguments)` in a process of one thread, which may fork others."""
    run_in_processes(_without_rank, 1, work, arguments)


def train_in_processes(config: Path, *arguments: str, world: int = 1) -> None:
    """Run `python -m trainer CONFIG ...`, or what torchrun would start for `world` processes."""
    run_in_process(_train, config, arguments, world)


class ForkedTrainer:
    """The part of `subprocess.Popen` that the training flow uses, for a forked trainer."""

    def __init__(
        self, arguments: Sequence[str], output: IO[Any], threads: int | None = None
    ) -> None:
        del threads  # The forked process has one thread.
        start_server()
        assert "torch.distributed.run" not in arguments
        words = list(arguments[arguments.index("trainer") + 1 :])
        self._process = multiprocessing.get_context("forkserver").Process(
            target=_run_trainer, args=(words, output.name), daemon=True
        )
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("trainer", timeout or 0)
        return self.returncode

    def terminate(self) -> None:
        self._process.terminate()


def _run_trainer(words: Sequence[str], output: str) -> None:
    from trainer.__main__ import main

    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    raise SystemExit(main(words))


def start_server() -> None:
    multiprocessing.set_forkserver_preload(_PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(ROOT))
        forkserver.ensure_running()


def _without_rank(rank: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    assert rank == 0
    work(*arguments)


def _train(config: Path, arguments: tuple[str, ...], world: int) -> None:
    from tests.helpers.forked import ended, start

    assert ended(start(config, *arguments, world=world)) == [0] * world
