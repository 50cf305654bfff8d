"""Building a catalog as a Prefect flow.

The stages are those of `pipeline/run.py`. Their parts are task runs with names and retries.
"""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Any

from prefect import Task, tags
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from prefect.logging import get_run_logger

from data_catalog.settings import LocalPath
from flows.artifacts import show_catalog, stage_progress
from flows.events import emit_catalog_built, tag_flow_run
from flows.pages.catalog import write_catalog_page
from flows.progress import format_rate, progress_bar
from flows.runners import task_runner, worth_a_retry
from flows.served import served_flow
from pipeline import run
from pipeline.add import add as add_to
from pipeline.config import Addition, Build
from pipeline.parts import Part

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

    def in_turn(batch: Sequence[tuple[Any, ...]]) -> list[Part]:
        return [function(*arguments) for arguments in batch if not stop_flag.is_set()]

    wrapped = Task(
        in_turn,
        name=stage,
        description=inspect.getdoc(function),
        tags={"clustermix", f"clustermix-{stage}"},
        retries=2,
        retry_delay_seconds=1,
        retry_condition_fn=worth_a_retry,
        cache_policy=NO_CACHE,
    )
    size = -(-len(calls) // MAXIMUM_STAGE_TASKS)
    futures = []
    try:
        for first in range(0, len(calls), size):
            batch = calls[first : first + size]
            folder = next(argument for argument in batch[0] if isinstance(argument, Path))
            name = f"{stage}/{folder.name}" + (
                f" and {len(batch) - 1} more" if len(batch) > 1 else ""
            )
            futures.append(wrapped.with_options(task_run_name=name).submit(batch))
        done, documents, note, started = 0, 0, "", perf_counter()
        update = stage_progress(stage, len(calls))
        with progress_bar(stage, len(calls)) as advance:
            for future in as_completed(futures):
                parts = future.result()
                done += len(parts)
                documents += sum(part.account.read.rows for part in parts)
                if documents:
                    speed = format_rate(documents, perf_counter() - started, "documents")
                    note = f"{documents:,} documents, {speed}"
                advance(len(parts), note)
                update(done, note)
    finally:
        stop_flag.set()
    get_run_logger().info("%s: %d parts, %s", stage, done, note or "done")
    return [part for future in futures for part in future.result()]


@served_flow(name="build", flow_run_name="build {config.out}", task_runner=task_runner())
def build(config: Build) -> str:
    """Build a catalog and its page, CATALOG/report.html. Return the catalog's folder.

    Work that is already done with the same config is reused.

    Args:
        config: The build. Relative paths start at the folder that the flow runs in.
    """
    tag_flow_run("clustermix", "build", config.out.name)
    with tags(config.out.name):
        return _finish(run.build(config, each=as_tasks))


@served_flow(name="add", flow_run_name="add to {catalog}", task_runner=task_runner())
def add(catalog: LocalPath, addition: Addition) -> str:
    """Add documents or targets to a catalog as a new version. Return the catalog's folder.

    Adding the same content again has no effect.

    Args:
        catalog: Folder of a finished catalog.
        addition: A source, targets or both. Relative paths start at the folder that the flow runs
            in.
    """
    tag_flow_run("clustermix", "add", catalog.name)
    with tags(catalog.name):
        return _finish(add_to(catalog, addition, each=as_tasks))


def _finish(root: Path) -> str:
    """Write the page of a catalog, create its artifacts, and emit the event."""
    show_catalog(root, write_catalog_page(root, root / "report.html"))
    emit_catalog_built(root)
    return str(root)
