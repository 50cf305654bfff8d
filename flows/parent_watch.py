"""Stop a process when its parent dies, even if the parent was killed with SIGKILL.

`python -m flows.parent_watch PARENT MODULE ARGUMENTS` runs `python -m MODULE ARGUMENTS` in this
way. PARENT is the process id of the parent. With the id 0 it is the parent at the time of the
start.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import time
from threading import Thread

CHECK_SECONDS = 0.5


def stop_with_parent(parent: int, number: int = signal.SIGTERM) -> None:
    """Send this process a signal as soon as its parent is no longer the process `parent`.

    The parent passes its own id, so that its death is noticed even before this call.

    Args:
        parent: Process id of the parent.
        number: Signal to send.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(CHECK_SECONDS)
        os.kill(os.getpid(), number)

    Thread(target=watch, name="stop-with-parent", daemon=True).start()


def stop_with_main_process() -> None:
    """Stop this process, which Python's `multiprocessing` has started, when its parent dies."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        stop_with_parent(parent.pid)


if __name__ == "__main__":
    stop_with_parent(int(sys.argv[1]) or os.getppid())
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
