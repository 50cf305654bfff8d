"""Work in processes forked from one that has done the slow imports: starting one takes milliseconds."""

import multiprocessing
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.repository import ROOT


def run_in_processes(work: Callable[..., None], world: int, *arguments: Any) -> None:
    """Call `work(rank, *arguments)` in `world` processes of one thread each, and wait for them.

    Raises:
        ProcessRaisedException: A process raised; the message holds its traceback.
    """
    _start_server()
    torch.multiprocessing.start_processes(work, arguments, nprocs=world, start_method="forkserver")


def run_in_process(work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(*arguments)` in a process of one thread, which may fork others."""
    run_in_processes(_without_rank, 1, work, arguments)


def train_in_processes(config: Path, *arguments: str, world: int = 1) -> None:
    """Run `python -m trainer CONFIG ...`, or what torchrun would start for `world` processes."""
    run_in_process(_train, config, arguments, world)


def _start_server() -> None:
    multiprocessing.set_forkserver_preload(["tests.helpers.forked", "tests.helpers.tiny_models"])
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
