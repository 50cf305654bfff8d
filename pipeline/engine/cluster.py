"""The connection to a Ray cluster, and the check of its machines before the first stage."""

import logging
import os
import pickle
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from data_catalog.errors import UserError, first_line
from data_catalog.place import Folder, Place
from data_catalog.temporary import temporary_path
from pipeline.absolute_paths import local_paths
from pipeline.config import Addition, Build, Embed
from pipeline.dedup.shuffle import MEMORY_STAGES
from pipeline.embed.identity import identify
from pipeline.engine.config import LOCAL, RAY_SETTINGS, Cluster
from pipeline.engine.worker import Expected, installed_software

try:
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ModuleNotFoundError as error:
    raise UserError("Ray is not installed. Run: pip install 'clustermix[ray]'.") from error

from pipeline.engine.stages import RayStages

ANSWER_SECONDS = 10.0  # in which a cluster's port must answer
CHECK_SECONDS = 900.0  # for the processes of all machines to start and compare
LOCAL_STARTS = 3  # attempts: Ray gives up after 30 s, which a busy machine may exceed
LOCAL_STORE_BYTES = 256 * 2**20  # of a local cluster's object store, which holds few objects
_LONGEST_FOLDER = 40  # characters: the path of a socket in it must not exceed 107

logger = logging.getLogger(__name__)


@contextmanager
def connected(
    cluster: Cluster, work: Folder, config: Build | Addition, embed: Embed
) -> Iterator[RayStages]:
    """Connect this process to a Ray cluster and check its workers. Yield the cluster's `Each`.

    Args:
        cluster: The cluster.
        work: The work folder of the catalog.
        config: The build or addition, with absolute paths.
        embed: The encoder of the catalog.

    Raises:
        UserError: The cluster cannot be reached, or one of its machines lacks the folder, the
            paths, the encoder or the software of this one. The message names the machine.
    """
    with _connection(cluster), _token(work) as (file, token):
        paths = {key: path for key, path in local_paths(config).items() if path.exists()}
        expected = Expected(file, token, installed_software(), paths)
        check_machines(expected, embed)
        stages = RayStages(expected, dict.fromkeys(MEMORY_STAGES, config.dedup.memory_megabytes))
        try:
            yield stages
        finally:
            stages.close()


def check_machines(expected: Expected, embed: Embed) -> None:
    """Check every machine of the cluster.

    Raises:
        UserError: A machine differs, or does not answer. The message names it.
    """
    content = pickle.dumps((expected, embed, identify(embed).comparable))
    task = ray.remote(_check_function())
    machines = [node for node in ray.nodes() if node["Alive"]]
    answers = [
        task.options(
            name="check",
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(content)
        for node in machines
    ]
    problems = []
    for node, answer in zip(machines, answers, strict=True):
        host = node["NodeManagerHostname"]
        try:
            problem = ray.get(answer, timeout=CHECK_SECONDS)
        except GetTimeoutError:
            problem = f"it does not answer in {CHECK_SECONDS:.0f} s. Restart its worker."
        except RayError as error:
            problem = f"its worker fails ({first_line(error)}). Restart it."
        if problem:
            problems.append(f"machine {host} ({node['NodeManagerAddress']}): {problem}")
    if problems:
        others = f" So do {len(problems) - 1} more machines." if len(problems) > 1 else ""
        raise UserError(f"{problems[0]}{others}")
    logger.info("%d machines of the cluster agree", len(machines))


def _check_function() -> Callable[[bytes], str | None]:
    """Return the function that a worker runs. Ray sends its code, so it needs no clustermix."""

    def check(content: bytes) -> str | None:
        import os  # noqa: PLC0415
        import pickle  # noqa: PLC0415

        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        try:
            from pipeline.engine.worker import (  # noqa: PLC0415
                find_encoder_problem,
                find_problem,
            )

            expected, embed, comparable = pickle.loads(content)  # noqa: S301 - of this command
        except (ImportError, AttributeError) as error:
            return (
                f"this version of clustermix is not installed there ({error}). "
                "Install the same versions on every machine."
            )
        return find_problem(expected) or find_encoder_problem(embed, comparable)

    return check


@contextmanager
def _token(work: Folder) -> Iterator[tuple[Folder, str]]:
    """Write a token into the work folder for workers to read. Yield its file and the token.

    A token of a killed process is removed as other temporaries are. In a store, it stays.
    """
    token = secrets.token_hex(16)
    if isinstance(work, Place):
        stored = work / "cluster" / f"token-{uuid4().hex}"
        stored.write(token.encode())
        try:
            yield stored, token
        finally:
            stored.remove()
        return
    file = temporary_path(work / "cluster" / "token")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(token, encoding="utf-8")
        yield file, token
    finally:
        file.unlink(missing_ok=True)


@contextmanager
def _connection(cluster: Cluster) -> Iterator[None]:
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    verbose = logging.getLogger().isEnabledFor(logging.INFO)
    logging.getLogger("ray").setLevel(logging.INFO if verbose else logging.ERROR)
    try:
        if cluster.address == LOCAL:
            with _local_folder() as folder:
                _start_local(cluster, folder)
                yield
        else:
            _join(cluster)
            yield
    finally:
        ray.shutdown()


def _start_local(cluster: Cluster, folder: Path) -> None:
    # A token of its own, so that other users of this machine cannot send it functions. Ray asks for
    # tokens unless RAY_AUTH_MODE says otherwise, which it has read when it was imported.
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    for attempt in range(1, LOCAL_STARTS + 1):
        try:
            _init(
                LOCAL,
                num_cpus=cluster.workers,
                include_dashboard=False,
                object_store_memory=LOCAL_STORE_BYTES,
                _temp_dir=str(folder),
            )
            return
        except Exception as error:  # Ray raises errors of many kinds, this one a plain Exception
            ray.shutdown()
            if "timed out during startup" in str(error) and attempt < LOCAL_STARTS:
                continue
            raise UserError(
                f"Ray does not start on this machine ({first_line(error)}). "
                "Use --runner threads or --runner processes."
            ) from error


def _join(cluster: Cluster) -> None:
    address, endpoint = cluster.address, cluster.endpoint()
    try:
        socket.create_connection(endpoint or ("", 0), ANSWER_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"cluster {address}: nothing answers there ({error.strerror or error}). Start a head "
            "with `ray start --head`, and name its address."
        ) from error
    try:
        _init(address)
    except Exception as error:  # Ray raises errors of many kinds, among them plain Exceptions
        raise UserError(_refusal(address, error)) from error


def _init(address: str, **options: Any) -> None:
    """Connect to Ray. The handler of SIGTERM, which Ray replaces, stays that of this process."""
    verbose = logging.getLogger().isEnabledFor(logging.INFO)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, configure_logging=False, log_to_driver=verbose, **options)
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _refusal(address: str, error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    reason = lines[-1].strip().rstrip(".") if lines else type(error).__name__  # after a traceback
    kind = type(error).__name__
    if "Authentication" in kind or "UNAUTHENTICATED" in str(error):
        return (
            f"cluster {address}: it needs a token. Set RAY_AUTH_MODE=token and put the token of "
            "the head into RAY_AUTH_TOKEN or ~/.ray/auth_token."
        )
    if not address.startswith("ray://"):
        return (
            f"cluster {address}: cannot be joined ({reason}). Run `clustermix worker --head "
            f"{address}` on this machine, or name the head's Ray Client, ray://HOST:10001."
        )
    return f"cluster {address}: cannot be used ({reason})."


@contextmanager
def _local_folder() -> Iterator[Path]:
    """Yield a temporary folder with a short path for a local cluster."""
    parent = tempfile.gettempdir()
    folder = Path(
        tempfile.mkdtemp(
            prefix="clustermix-",
            dir=parent if len(parent) <= _LONGEST_FOLDER else "/tmp",  # noqa: S108
        )
    )
    try:
        yield folder
    finally:
        ray.shutdown(wait_for_processes=True)
        shutil.rmtree(folder, ignore_errors=True)
