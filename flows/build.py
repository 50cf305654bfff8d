"""The build as a Prefect flow: the story of `pipeline/run.py`, each part a task run with a name and retries."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Any

from prefect import Task, flow, tags
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from prefect.logging import get_run_logger

from flows.artifacts import show_catalog, stage_progress
from flows.events import emit_catalog_built, tag_flow_run
from flows.pages.catalog import write_catalog_page
from flows.progress import format_rate, progress_bar
from flows.runners import task_runner, worth_a_retry
from pipeline import run
from pipeline.add import add as add_to
from pipeline.config import Addition, Build
from pipeline.parts import Part

MAXIMUM_STAGE_TASKS = 256  # a stage: tens of thousands would overflow Prefect's event queue


class StopFlag(Event):
    """Set when the flow is told to stop: threads then begin no further part. In another process, which is ended instead, it stays unset."""

    def __reduce__(self) -> tuple[type["StopFlag"], tuple[()]]:
        return StopFlag, ()


def as_tasks(
    stage: str, function: Callable[..., Part], calls: Sequence[tuple[Any, ...]]
) -> list[Part]:
    """Run the parts of one stage as Prefect tasks; results in the order of `calls`.

    A stage of very many parts has `MAXIMUM_STAGE_TASKS` tasks, each of several. Prefect's cache is not used: a part's sidecar alone decides what is
    done, so a task that is tried again goes on with the part that failed. The tag `clustermix-STAGE` is where a limit takes hold.
    """
    if not calls:
        return []
    interrupted = StopFlag()

    def in_turn(batch: Sequence[tuple[Any, ...]]) -> list[Part]:
        return [function(*arguments) for arguments in batch if not interrupted.is_set()]

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
        shown = stage_progress(stage, len(calls))
        with progress_bar(stage, len(calls)) as advance:
            for future in as_completed(futures):
                parts = future.result()
                done += len(parts)
                documents += sum(part.account.read.rows for part in parts)
                note = (
                    f"{documents:,} documents, {format_rate(documents, perf_counter() - started, 'documents')}"
                    if documents
                    else ""
                )
                advance(len(parts), note)
                shown(done, note)
    except BaseException:
        interrupted.set()
        raise
    get_run_logger().info("%s: %d parts, %s", stage, done, note or "done")
    return [part for future in futures for part in future.result()]


@flow(name="build", flow_run_name="build {config.out}", task_runner=task_runner())
def build(config: Build) -> str:
    """Build a catalog and its page, CATALOG/report.html; return the catalog's folder. Work already done with this config is kept.

    Args:
        config: What to build, from what, how. Paths are taken from the folder that the flow runs in.
    """
    tag_flow_run("clustermix", "build", config.out.name)
    with tags(config.out.name):
        return _finish(run.build(config, each=as_tasks))


@flow(name="add", flow_run_name="add to {catalog}", task_runner=task_runner())
def add(catalog: Path, addition: Addition) -> str:
    """Add documents or targets to a catalog, as a new version of it; return its folder. Adding the same again does nothing.

    Args:
        catalog: The folder of a finished catalog.
        addition: A source, targets or both. Paths are taken from the folder that the flow runs in.
    """
    tag_flow_run("clustermix", "add", catalog.name)
    with tags(catalog.name):
        return _finish(add_to(catalog, addition, each=as_tasks))


def _finish(root: Path) -> str:
    """Write the page of a catalog, show it in Prefect, and tell whoever waits for it."""
    show_catalog(root, write_catalog_page(root, root / "report.html"))
    emit_catalog_built(root)
    return str(root)
