"""Settings of libraries for a command, and replacements for what its environment lacks.

Settings from the user's environment take precedence. Every command calls `set_library_defaults`,
which creates no file. Commands that build or train call `prepare_work` too.
"""

import atexit
import os
import resource
import secrets
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from data_catalog.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_private_paths: set[Path] = set()  # of this process; they need not exist yet


def set_library_defaults() -> None:
    """Set environment variables of numeric libraries, the home and proxies. Creates no file."""
    defaults = {
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "true",
        "OMP_WAIT_POLICY": "passive",  # waiting threads must not take cores from working ones
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if not _has_home():
        # Libraries would otherwise fail, or write to a folder named `~`.
        os.environ["HOME"] = str(new_private_path())
    _connect_to_loopback_directly()


def prepare_work() -> None:
    """Set up this process for a build or a training.

    Raises:
        UserError: No folder for temporary files can be written.
    """
    set_library_defaults()
    raise_file_limit()
    _check_temporary_folder()


def raise_file_limit() -> None:
    """Let this process and those that it starts open as many files as the system allows.

    Parts, runs and token files are opened by turns, so no number of them needs more. The default of
    many systems, 1,024, is low for Prefect's server with many clients.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS refuses its own unlimited value
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _has_home() -> bool:
    """Return whether the user has a home. The root of the file system is none."""
    try:
        home = Path.home()
    except RuntimeError:  # HOME is not set, and the user is not in the system's database
        return False
    if home in _private_paths:
        return True
    return home.is_absolute() and home != Path(home.anchor) and os.path.isdir(home)


def new_private_path() -> Path:
    """Return a temporary path that nobody can guess. If it is created, it is removed at exit."""
    try:
        parent = tempfile.gettempdir()
    except FileNotFoundError:  # no folder for temporary files can be written
        parent = "/tmp"  # noqa: S108
    path = Path(parent, f"clustermix-{secrets.token_hex(16)}")
    _private_paths.add(path)
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _check_temporary_folder() -> None:
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise UserError(
            "TMPDIR: no folder for temporary files can be written, neither this one nor /tmp. "
            "Set TMPDIR to a folder that you can write to."
        ) from error


def _connect_to_loopback_directly() -> None:
    """Exclude this machine from the proxies, for this process and those that it starts."""
    proxies = [
        name
        for name, value in os.environ.items()
        if value and name.lower().endswith("_proxy") and name.lower() != "no_proxy"
    ]
    for name in proxies:
        scheme, separator, rest = os.environ[name].partition("://")
        if scheme.lower() == "socks":  # desktops write this; httpx only knows versions
            os.environ[name] = f"socks5{separator}{rest}"
    if proxies:
        spellings = ("no_proxy", "NO_PROXY")  # libraries differ in which one they prefer
        before = {name: os.environ.get(name, "") for name in spellings}
        for name in spellings:
            hosts = before[name] or "".join(before.values())
            if hosts.strip() != "*":
                named = [host.strip() for host in hosts.split(",") if host.strip()]
                missing = [host for host in LOOPBACK if host not in named]
                os.environ[name] = ",".join([*named, *missing])


def end_quietly() -> None:
    """Discard standard error during interpreter shutdown. Call this before anything else.

    DuckDB's binding would list objects that Prefect's threads still hold.
    """

    def close() -> None:
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    atexit.register(close)  # registered first, so it runs last
