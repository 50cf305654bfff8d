"""Building a catalog as a Prefect flow.

The stages are those of `pipeline/run.py`. On this machine, their parts are task runs with names and
retries. On a Ray cluster, each stage is one task run, and its parts are Ray's tasks, whose workers
know nothing of Prefect.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Any, Protocol

from prefect import Task, tags
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from prefect.logging import get_run_logger

from data_catalog.format.layout import WORK
from data_catalog.place import Folder, Place
from data_catalog.settings import FolderPath
from flows.artifacts import show_catalog, stage_progress
from flows.events import emit_catalog_built, tag_flow_run
from flows.pages.catalog import write_catalog_page
from flows.progress import format_rate, progress_bar, working
from flows.runners import task_runner, worth_a_retry
from flows.served import served_flow
from pipeline import run
from pipeline.absolute_paths import with_absolute_paths
from pipeline.add import add as add_to
from pipeline.add import check_addition
from pipeline.config import Addition, Build, Embed
from pipeline.engine.config import Cluster
from pipeline.parts import Part
from pipeline.run import Each

MAXIMUM_STAGE_TASKS = 256  # tens of thousands of tasks would overflow Prefect's event queue


class StopFlag(Event):
    """Flag that stops the threads of a flow from starting further parts.

    A copy in another process stays unset, because processes are terminated instead.
    """

    def __reduce__(self) -> tuple[type["StopFlag"], tuple[()]]:
        return StopFlag, ()


class Engine(Protocol):
    """An `Each` that also reports every part as it is finished."""

    def __call__(
        self,
        stage: str,
        function: Callable[..., Part],
        calls: Sequence[tuple[Any, ...]],
        on_part: Callable[[Part], None],
    ) -> list[Part]: ...


def as_tasks(
    stage: str, function: Callable[..., Part], calls: Sequence[tuple[Any, ...]]
) -> list[Part]:
    """Run the parts of one stage as Prefect tasks and return their results in order.

    A stage has at most `MAXIMUM_STAGE_TASKS` tasks, each with several parts if there are more.
    Prefect's cache is not used: the sidecar of a part decides whether it is done, so a retried task
    resumes at the part that failed. Concurrency limits apply to the tag `clustermix-STAGE`.

    Args:
        stage: Name of the stage.
        function: Function that processes one part.
        calls: Arguments of `function`, one tuple per part.
    """
    if not calls:
        return []
    stop_flag = StopFlag()

    def make_parts(batch: Sequence[tuple[Any, ...]]) -> list[Part]:
        return [function(*arguments) for arguments in batch if not stop_flag.is_set()]

    wrapped = Task(
        make_parts,
        retries=2,
        retry_delay_seconds=1,
        retry_condition_fn=worth_a_retry,
        **_task_options(stage, function),
    )
    size = -(-len(calls) // MAXIMUM_STAGE_TASKS)
    futures = []
    try:
        for first in range(0, len(calls), size):
            batch = calls[first : first + size]
            folder = next(argument for argument in batch[0] if isinstance(argument, Path | Place))
            name = f"{stage}/{folder.name}" + (
                f" and {len(batch) - 1} more" if len(batch) > 1 else ""
            )
            futures.append(wrapped.with_options(task_run_name=name).submit(batch))
        with _stage_display(stage, len(calls)) as show:
            for future in as_completed(futures):
                show(future.result())
    finally:
        stop_flag.set()
    return [part for future in futures for part in future.result()]


def as_stage_tasks(engine: Engine) -> Each:
    """Return an `Each` that runs every stage on `engine`, as one Prefect task.

    The engine retries parts by itself.
    """

    def each(
        stage: str, function: Callable[..., Part], calls: Sequence[tuple[Any, ...]]
    ) -> list[Part]:
        if not calls:
            return []
        parts: list[Part] = []  # Prefect would search the task's own result for futures

        def make_parts() -> None:
            with _stage_display(stage, len(calls)) as show:
                parts.extend(engine(stage, function, calls, lambda part: show([part])))

        Task(make_parts, task_run_name=stage, **_task_options(stage, function))()
        return parts

    return each


def _task_options(stage: str, function: Callable[..., Part]) -> dict[str, Any]:
    return {
        "name": stage,
        "description": inspect.getdoc(function),
        "tags": {"clustermix", f"clustermix-{stage}"},
        "cache_policy": NO_CACHE,
    }


@contextmanager
def _stage_display(stage: str, total: int) -> Iterator[Callable[[Sequence[Part]], None]]:
    """Show the progress of a stage of `total` parts. Yield a function that takes finished parts."""
    done, documents, note, started = 0, 0, "", perf_counter()
    update = stage_progress(stage, total)
    with progress_bar(stage, total) as advance:

        def show(parts: Sequence[Part]) -> None:
            nonlocal done, documents, note
            done += len(parts)
            documents += sum(part.account.read.rows for part in parts)
            if documents:
                speed = format_rate(documents, perf_counter() - started, "documents")
                note = f"{documents:,} documents, {speed}"
            advance(len(parts), note)
            update(done, note)

        yield show
    get_run_logger().info("%s: %d parts, %s", stage, done, note or "done")


@contextmanager
def _on_ray(
    cluster: Cluster, root: Folder, config: Build | Addition, embed: Embed
) -> Iterator[Each]:
    """Yield an `Each` on a Ray cluster, whose machines have been checked."""
    from pipeline.engine.cluster import connected  # noqa: PLC0415 - Ray is optional

    with ExitStack() as stack:
        with working("Connecting to Ray, and checking its machines."):
            connection = connected(cluster, root / WORK, config, embed)
            engine = stack.enter_context(connection)
        yield as_stage_tasks(engine)


@served_flow(name="build", flow_run_name="build {config.out}", task_runner=task_runner())
def build(config: Build, cluster: Cluster | None = None) -> str:
    """Build a catalog and its page, CATALOG/report.html. Return the catalog's folder.

    Work that is already done with the same config is reused.

    Args:
        config: The build. Relative paths start at the folder that the flow runs in.
        cluster: Ray cluster that makes the parts. If not given, this machine makes them.

    Raises:
        UserError: The config, the data or the cluster cannot be used.
    """
    tag_flow_run("clustermix", "build", config.out.name)
    with tags(config.out.name):
        if cluster is None:
            return _finish(run.build(config, as_tasks))
        config = with_absolute_paths(config)
        run.check_request(config)  # before anything is written
        with _on_ray(cluster, config.out, config, config.embed) as each:
            return _finish(run.build(config, each))


@served_flow(name="add", flow_run_name="add to {catalog}", task_runner=task_runner())
def add(catalog: FolderPath, addition: Addition, cluster: Cluster | None = None) -> str:
    """Add documents or targets to a catalog as a new version. Return the catalog's folder.

    Adding the same content again has no effect.

    Args:
        catalog: Folder of a finished catalog, or its URL in an object store.
        addition: A source, targets or both. Relative paths start at the folder that the flow runs
            in.
        cluster: Ray cluster that makes the parts. If not given, this machine makes them.

    Raises:
        UserError: The addition, the catalog or the cluster cannot be used.
    """
    tag_flow_run("clustermix", "add", catalog.name)
    with tags(catalog.name):
        if cluster is None:
            return _finish(add_to(catalog, addition, as_tasks))
        catalog = catalog.absolute() if isinstance(catalog, Path) else catalog
        addition = with_absolute_paths(addition)
        _, config, _ = check_addition(catalog, addition)
        with _on_ray(cluster, catalog, addition, config.embed) as each:
            return _finish(add_to(catalog, addition, each))


def _finish(root: Folder) -> str:
    """Write the page of a catalog, create its artifacts, and emit the event."""
    show_catalog(root, write_catalog_page(root, root / "report.html"))
    emit_catalog_built(root)
    return str(root)
