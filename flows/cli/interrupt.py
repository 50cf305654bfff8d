"""Ending a command on request: immediately, and without leaving partial files behind."""

import atexit
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

TERMINATED = 128 + signal.SIGTERM  # the conventional exit code of a process ended by SIGTERM


class Terminated(BaseException):
    """The process received a SIGTERM."""


def raise_on_sigterm() -> None:
    """Raise `Terminated` on a SIGTERM, as Ctrl-C raises `KeyboardInterrupt`.

    The exception unwinds the stack, so that partially written files are removed.
    """

    def handler(_number: int, _frame: FrameType | None) -> NoReturn:
        raise Terminated

    signal.signal(signal.SIGTERM, handler)


def end_now(code: int) -> NoReturn:
    """Run the registered exit functions and end this process without waiting for threads.

    The exit functions include the one that stops Prefect's own server. A thread may need hours to
    finish its part, and an unfinished part is discarded anyway.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(code)
