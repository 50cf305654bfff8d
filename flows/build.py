"""Building a catalog as a Prefect flow.

The stages are those of `pipeline/run.py`. On this machine, their parts are task runs with names and
retries. On a Ray cluster, each stage is one task run, and its parts are Ray's tasks, whose workers
know nothing of Prefect.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from prefect import Task, tags
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from prefect.logging import get_run_logger

from data_catalog.place import Folder, Place
from data_catalog.settings import FolderPath
from flows.artifacts import show_catalog, stage_progress
from flows.building import PAGE, add_to_catalog, build_catalog
from flows.events import emit_catalog_built, tag_flow_run
from flows.runners import task_runner, worth_a_retry
from flows.served import served_flow
from flows.stage_display import ReportingEach, stage_display
from pipeline.config import Addition, Build
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


def as_stage_tasks(engine: ReportingEach) -> Each:
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
    """Show the progress of a stage on the terminal and in Prefect. See `stage_display`."""
    done, note = 0, ""
    update = stage_progress(stage, total)

    def on_progress(parts: int, text: str) -> None:
        nonlocal done, note
        done, note = parts, text
        update(done, note)

    with stage_display(stage, total, on_progress) as show:
        yield show
    get_run_logger().info("%s: %d parts, %s", stage, done, note or "done")


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
        return _show(build_catalog(config, as_tasks, cluster, as_stage_tasks))


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
        return _show(add_to_catalog(catalog, addition, as_tasks, cluster, as_stage_tasks))


def _show(root: Folder) -> str:
    """Create the artifacts of a catalog, and emit the event. Return its folder."""
    show_catalog(root, root / PAGE)
    emit_catalog_built(root)
    return str(root)
