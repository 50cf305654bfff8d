"""Trainer processes forked from one that has finished the slow imports.

Starting a process takes milliseconds. This is only for scripts, not for the process of pytest,
because the parent must never start a thread. Forked processes share the hash seed of the parent.
Tests that compare their output with that of another process notice if it depends on the order of a
set.
"""

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from trainer.__main__ import main

# Otherwise every child would import the last two on first use.
for slow in ("trainer.loop", "pyarrow.dataset", "pandas"):
    with suppress(ImportError):
        import_module(slow)


def fork(work: Callable[[], int], **environment: object) -> int:
    """Run `work` in a child process and return its id.

    The child exits without waiting for threads and without finalising the interpreter.
    """
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    os.environ.update({name: str(value) for name, value in environment.items()})
    code = 1
    try:
        code = work()
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def start(config: Path, *arguments: str, world: int = 1) -> list[int]:
    """Start `python -m trainer CONFIG ...`, or its processes under torchrun. Return ids by rank."""
    return team(lambda: main([str(config), *arguments]), world)


def team(work: Callable[[], int], world: int) -> list[int]:
    if world == 1:
        return [fork(work)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": free.getsockname()[1],
            "WORLD_SIZE": world,
        }
    return [fork(work, RANK=rank, LOCAL_RANK=rank, **address) for rank in range(world)]


def ended(children: Sequence[int]) -> list[int]:
    """Return exit codes. A process that a signal ended has its negative number."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def wait_for_step(children: Sequence[int], out: Path, step: int) -> None:
    """Return once the run has logged `step`. Fail if a process ends before."""
    while steps_logged(out) < step:
        for child in children:
            assert os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None, (
                f"ended before step {step}"
            )
        time.sleep(0.0005)


def steps_logged(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b'"kind": "train"') if path.is_file() else 0
