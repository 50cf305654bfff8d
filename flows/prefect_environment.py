"""Settings of Prefect for the flows of this process, and the check of the server that they use.

Only what starts a flow imports this module. Settings from the user's environment take precedence.
"""

import logging
import os
import tempfile
import warnings
from contextlib import redirect_stderr, suppress
from io import StringIO
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

from data_catalog.errors import UserError
from data_catalog.folders import cache_folder
from flows.environment import new_private_path, prepare_work
from flows.prefect_settings import check_settings_files, named_url, profiles_path

ANSWER_SECONDS = 4.5  # in which a Prefect server must answer


def prepare() -> None:
    """Set up Prefect for the flows of this process. Call this before Prefect is imported.

    Prefect is quiet and offline, with its files in the user's cache folder, or in a private
    temporary folder if the cache folder cannot be written. It logs only if the root logger shows
    information.

    Raises:
        UserError: Prefect cannot work in this environment.
    """
    prepare_work()
    _check_proxies()
    verbose = logging.getLogger().isEnabledFor(logging.INFO)
    defaults = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # By default the server records tens of task runs per second, and loses the last ones when a
        # short flow ends.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
        # Whole seconds: Prefect truncates this number, and with 0 its server keeps a core busy.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        # Failures are reported by the command line.
        "PREFECT_LOGGING_LEVEL": "DEBUG" if verbose else "CRITICAL",
        # Otherwise it prints events that it cannot send to a server that a signal ends.
        "PREFECT_INTERNAL_LOGGING_LEVEL": "ERROR" if verbose else "CRITICAL",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if not os.environ.get("PREFECT_HOME"):
        profiles = Path.home() / ".prefect" / "profiles.toml"  # e.g. from `prefect cloud login`
        if os.path.isfile(profiles):  # also False for a folder that cannot be searched
            os.environ.setdefault("PREFECT_PROFILES_PATH", str(profiles))
        os.environ["PREFECT_HOME"] = str(_cache_folder() / "prefect")
    _check_prefect_home()
    check_settings_files()


def find_server() -> str | None:
    """Return the URL of the Prefect server that the user's settings name.

    They are environment variables, `.env`, `prefect.toml`, `pyproject.toml` and the active profile.

    Returns:
        The URL, or None if flows need a server of their own.

    Raises:
        UserError: A setting is invalid, or the server does not answer.
    """
    check_named_server()  # before the slow import of Prefect
    named = named_url()
    try:
        # Prefect warns of each setting of an earlier version that a profile has.
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            from prefect.context import get_settings_context  # noqa: PLC0415

            url = get_settings_context().settings.api.url or None
    except (ValueError, TypeError, OSError) as error:
        raise UserError(
            f"Prefect's settings: {_first_reason(error)}. They come from environment variables, "
            f".env, prefect.toml, pyproject.toml and {profiles_path()}. Correct or unset it."
        ) from error
    if url is not None:
        if url != named:
            _check_answer(url)
        _check_acceptance(url)
    return url


def check_named_server() -> None:
    """Check that the server that the user's settings name answers. Prefect is not imported.

    Nothing is written.

    Raises:
        UserError: It does not answer.
    """
    if url := named_url():
        _check_answer(url)


def _cache_folder() -> Path:
    """Create and return the folder for files of Prefect."""
    cache = cache_folder()
    with suppress(OSError):
        if not Path.home().exists():
            Path.home().mkdir(0o700)  # the temporary one of `set_library_defaults`
        _make_writable_folder(cache)
        return cache
    folder = new_private_path()
    try:
        _make_writable_folder(folder)
    except OSError as error:
        raise UserError(
            f"{cache} and {folder.parent}: cannot be written ({error.strerror}). Set "
            "XDG_CACHE_HOME or TMPDIR to a folder that you can write to."
        ) from error
    return folder


def _make_writable_folder(folder: Path) -> None:
    folder.mkdir(0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def _check_prefect_home() -> None:
    name = os.environ["PREFECT_HOME"]
    try:
        _make_writable_folder(Path(name).expanduser())
    except (OSError, RuntimeError) as error:  # RuntimeError: the user of `~USER` is unknown
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"PREFECT_HOME {name}: cannot be written ({reason}). Set it to a folder that you can "
            "write to, or unset it."
        ) from error


def _check_proxies() -> None:
    """Raise `UserError` if a client of Prefect cannot be made with the proxies."""
    import httpx  # noqa: PLC0415

    try:
        httpx.Client(verify=False).close()  # noqa: S501 - it connects to nothing
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        raise UserError(
            f"HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used: {str(error).rstrip('.')}. "
            "Correct or unset it."
        ) from error


def _first_reason(error: BaseException) -> str:
    """Return the reason of an error in one line, without the value, which may be secret."""
    from pydantic import ValidationError  # noqa: PLC0415

    if isinstance(error, ValidationError):
        detail = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _check_answer(url: str) -> None:
    """Raise `UserError` if nothing answers at the address of a Prefect server."""
    import httpx  # noqa: PLC0415

    failures: Queue[Exception | None] = Queue()

    def ask() -> None:
        try:
            # Without a password, so that the server need not prove who it is.
            with httpx.Client(verify=False, timeout=ANSWER_SECONDS) as client:  # noqa: S501
                client.get(f"{url.rstrip('/')}/health")
            failures.put(None)
        except Exception as error:
            failures.put(error)

    # In a thread, because a lookup of the host's name has no time limit.
    Thread(target=ask, name="ask Prefect", daemon=True).start()
    try:
        failure = failures.get(timeout=ANSWER_SECONDS)
    except Empty:
        failure = TimeoutError("it did not answer in time")
    if failure is not None:
        raise _server_error(url, failure)


def _check_acceptance(url: str) -> None:
    """Raise `UserError` if the Prefect server at `url` is no match for this client."""
    from prefect.client.orchestration import get_client  # noqa: PLC0415
    from prefect.settings import temporary_settings  # noqa: PLC0415

    try:
        with (
            temporary_settings({"client.max_retries": 0}),
            get_client(sync_client=True) as client,
        ):
            client.raise_for_api_version_mismatch()
    except Exception as error:
        raise _server_error(url, error.__cause__ or error) from error


def _server_error(url: str, error: BaseException) -> UserError:
    named = "" if os.environ.get("PREFECT_API_URL") else ", which Prefect's settings name"
    return UserError(
        f"PREFECT_API_URL {url}{named}: this Prefect server cannot be used "
        f"({_first_reason(error)}). Start it, or unset PREFECT_API_URL."
    )
