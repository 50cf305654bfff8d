"""The command `worker`, and the options that say where the parts of a build are made."""

import os
import socket
import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from data_catalog.errors import UserError
from flows.cli.options import BUILD, examples

if TYPE_CHECKING:
    from pipeline.engine.config import Cluster
    from pipeline.engine.local import RunnerName

worker_commands = typer.Typer()
HEAD_SECONDS = 600.0  # in which the head must start: a batch system may start it last
POLL_SECONDS = 2.0

Runner = Literal["threads", "processes", "ray"]
RunnerOption = Annotated[
    Runner,
    typer.Option(help="How parts run in parallel. It does not affect the catalog."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of parallel parts. Default: 4 threads, or one process per core.",
    ),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Ray cluster that makes the parts: ray://HOST:10001 from any machine, or HOST:6379 "
        "on a machine of the cluster.",
    ),
]


def chosen_cluster(runner: Runner, workers: int | None, address: str | None) -> "Cluster | None":
    """Return the Ray cluster that the options name, or None.

    Raises:
        UserError: The address is invalid, the options exclude each other, or Ray is not installed.
    """
    if address is None and runner != "ray":
        return None
    from data_catalog.settings import parse
    from pipeline.engine.config import Cluster

    cluster = (
        Cluster(workers=workers)
        if address is None
        else parse(Cluster, {"address": address}, "--cluster")
    )
    if address is not None and (workers is not None or runner == "processes"):
        option = "--workers" if workers is not None else "--runner"
        raise UserError(f"{option}: a cluster decides this by itself. Omit it with --cluster.")
    _check_ray()
    return cluster


def local_runner(runner: Runner) -> "RunnerName":
    """Return the kind of workers on this machine. Ray's builds need none."""
    return "threads" if runner == "ray" else runner


def with_runner(flow: Any, runner: Runner, workers: int | None) -> Any:
    """Return a flow that makes its parts on this machine as the options say, unless Ray does."""
    from flows.runners import task_runner

    return flow if runner == "ray" else flow.with_options(task_runner=task_runner(runner, workers))


@worker_commands.command(
    "worker",
    rich_help_panel=BUILD,
    epilog=examples("worker --head head:6379", "worker --head head:6379 --cpus 16 --gpus 1"),
)
def worker_command(
    head: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Address of a head, see `ray start --head`."),
    ],
    cpus: Annotated[
        int | None,
        typer.Option(min=0, help="Number of parts at once. Default: one per core."),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="Number of GPUs. Default: all that Ray finds.")
    ] = None,
) -> None:
    """Make this machine a part of a Ray cluster, for `build --cluster` and `add --cluster`.

    Waits for the head, and runs until the head or this command is stopped.
    """
    from data_catalog.settings import parse
    from flows.environment import raise_file_limit
    from pipeline.engine.config import RAY_SETTINGS, Cluster

    endpoint = parse(Cluster, {"address": head}, "--head").endpoint()
    if endpoint is None or head.startswith("ray://"):
        raise UserError(f"--head {head}: expected HOST:PORT, such as head:6379")
    _check_ray()
    _wait_for_head(head, *endpoint)
    raise_file_limit()
    amounts = {"--num-cpus": cpus, "--num-gpus": gpus}
    options = [f"{name}={value}" for name, value in amounts.items() if value is not None]
    arguments = ["start", f"--address={head}", "--block", "--disable-usage-stats", *options]
    command = [sys.executable, "-m", "ray.scripts.scripts", *arguments]
    sys.stdout.flush()
    os.execve(sys.executable, command, {**RAY_SETTINGS, **os.environ})  # noqa: S606


def _wait_for_head(head: str, host: str, port: int) -> None:
    deadline = time.monotonic() + HEAD_SECONDS
    while True:
        try:
            socket.create_connection((host, port), POLL_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"--head {head}: nothing answers there ({error.strerror or error}). Start it "
                    "with `ray start --head`."
                ) from error
        time.sleep(POLL_SECONDS)


def _check_ray() -> None:
    if find_spec("ray") is None:
        raise UserError("Ray is not installed. Run: pip install 'clustermix[ray]'.")
