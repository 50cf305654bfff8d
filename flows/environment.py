"""Prefect's settings for a command-line run: quiet, offline, its files in the user's cache. The user's own settings win."""

import atexit
import os
import sys
from pathlib import Path


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "clustermix"


def prepare(debug: bool = False) -> None:
    """Call before the first import of Prefect."""
    defaults = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(_cache_folder() / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        # The server writes tens of task runs a second by default, and loses the last ones when a short flow ends.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
        # Whole seconds: Prefect truncates this number, and an interval of zero keeps a core busy for as long as its server runs.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        "PREFECT_LOGGING_LEVEL": "DEBUG"
        if debug
        else "CRITICAL",  # failures reach the person as our own sentences
        "TOKENIZERS_PARALLELISM": "true",
        "OMP_WAIT_POLICY": "passive",  # threads that spin while they wait take the cores from those that work
    }
    profiles = Path("~/.prefect/profiles.toml").expanduser()
    if (
        "PREFECT_HOME" not in os.environ and profiles.is_file()
    ):  # such as what `prefect cloud login` wrote
        defaults["PREFECT_PROFILES_PATH"] = str(profiles)
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    Path(os.environ["PREFECT_HOME"]).expanduser().parent.mkdir(
        parents=True, exist_ok=True
    )  # Prefect makes the last folder alone


def end_quietly() -> None:
    """Call first of all: as the interpreter ends, DuckDB's binding lists on standard error what Prefect's threads still hold of it."""

    def close() -> None:
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    atexit.register(close)  # the first to be registered is the last to be called
