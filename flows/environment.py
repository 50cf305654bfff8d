"""Default settings of Prefect and other libraries for a command.

The defaults keep Prefect quiet and offline, with its files in the user's cache folder. Settings
from the user's environment take precedence.
"""

import atexit
import os
import sys
from pathlib import Path


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "clustermix"


def prepare(debug: bool = False) -> None:
    """Set environment variables that are not set yet. Call this before Prefect is imported.

    Args:
        debug: Show Prefect's log.
    """
    defaults = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(_cache_folder() / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        # By default the server records tens of task runs per second, and loses the last ones when a
        # short flow ends.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
        # Whole seconds: Prefect truncates this number, and with 0 its server keeps a core busy.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        # Failures are reported by the command line.
        "PREFECT_LOGGING_LEVEL": "DEBUG" if debug else "CRITICAL",
        "TOKENIZERS_PARALLELISM": "true",
        "OMP_WAIT_POLICY": "passive",  # waiting threads must not take cores from working ones
    }
    profiles = Path("~/.prefect/profiles.toml").expanduser()  # e.g. from `prefect cloud login`
    if "PREFECT_HOME" not in os.environ and profiles.is_file():
        defaults["PREFECT_PROFILES_PATH"] = str(profiles)
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    # Prefect only creates the last folder of the path.
    Path(os.environ["PREFECT_HOME"]).expanduser().parent.mkdir(parents=True, exist_ok=True)


def end_quietly() -> None:
    """Discard standard error during interpreter shutdown. Call this before anything else.

    DuckDB's binding would list objects that Prefect's threads still hold.
    """

    def close() -> None:
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    atexit.register(close)  # registered first, so it runs last
