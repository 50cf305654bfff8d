"""Temporary files as a process that was killed leaves them."""

import os
import subprocess
from pathlib import Path

from data_catalog.temporary import temporary_path


def temporary_of_killed(path: Path) -> Path:
    """Return a temporary name for `path`, of a process on this machine that has ended."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    temporary = temporary_path(path)
    return temporary.with_name(temporary.name.replace(f".{os.getpid()}.", f".{ended.pid}."))
