"""How a command ends when it is told to: at once, with nothing left behind."""

import atexit
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

TERMINATED = 128 + signal.SIGTERM  # the usual exit code of what a SIGTERM has ended


class Terminated(BaseException):
    """A SIGTERM has come."""


def obey_sigterm() -> None:
    """Let a SIGTERM end what is under way by an exception, as Ctrl-C does: what has begun to be written is taken away again."""

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        raise Terminated

    signal.signal(signal.SIGTERM, end)


def end_now(code: int) -> NoReturn:
    """End this process after what is registered for its end, such as stopping Prefect's own server; but wait for no thread.

    A thread may have hours to go with its part, and a part that is not finished is nothing.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(code)
