"""Tie a process to the one that started it: it is told to stop when that one dies, even of SIGKILL, and never goes on unseen.

`python -m flows.parent_watch MODULE ARGUMENTS` is `python -m MODULE ARGUMENTS` with a stop_with_parent.
"""

import os
import runpy
import signal
import sys
import time
from threading import Thread

CHECK_SECONDS = 1.0


def stop_with_parent() -> None:
    """Send this process a SIGTERM as soon as its parent is another one than now."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(CHECK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, name="tether", daemon=True).start()


if __name__ == "__main__":
    stop_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
