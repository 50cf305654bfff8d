"""Stop a process when its parent dies, even if the parent was killed with SIGKILL.

`python -m flows.parent_watch MODULE ARGUMENTS` runs `python -m MODULE ARGUMENTS` in this way.
"""

import os
import runpy
import signal
import sys
import time
from threading import Thread

CHECK_SECONDS = 1.0


def stop_with_parent() -> None:
    """Send this process a SIGTERM as soon as its parent process changes."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(CHECK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, name="stop-with-parent", daemon=True).start()


if __name__ == "__main__":
    stop_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
