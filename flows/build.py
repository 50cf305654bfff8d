"""The build as a Prefect flow: the story of `pipeline/run.py`, each part a task run with a name and retries."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed

from data_catalog.errors import AccountingError, UserError
from flows.progress import bar
from flows.runners import task_runner
from pipeline import run
from pipeline.add import add as add_to
from pipeline.config import Addition, Build
from pipeline.parts import Part

TASKS = 256  # a stage: tens of thousands would overflow Prefect's event queue


def worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    """A broken disk or network may heal; a wrong request or a lost document will not."""
    failure = state.result(raise_on_failure=False)
    return not isinstance(failure, (UserError, AccountingError))


def as_tasks(stage: str, function: Callable[..., Part], calls: Sequence[tuple[Any, ...]]) -> list[Part]:
    """Run the parts of one stage as Prefect tasks; results in the order of `calls`.

    A stage of very many parts has `TASKS` tasks, each of several. Prefect's cache is not used: a part's sidecar alone decides what is
    done, so a task that is tried again goes on with the part that failed.
    """
    if not calls:
        return []
    wrap = task(name=stage, retries=2, retry_delay_seconds=1, retry_condition_fn=worth_a_retry, cache_policy=NO_CACHE)

    @wrap
    def in_turn(batch: Sequence[tuple[Any, ...]]) -> list[Part]:
        return [function(*arguments) for arguments in batch]

    size = -(-len(calls) // TASKS)
    futures = []
    for first in range(0, len(calls), size):
        batch = calls[first : first + size]
        folder = next(argument for argument in batch[0] if isinstance(argument, Path))
        name = f"{stage}/{folder.name}" + (f" and {len(batch) - 1} more" if len(batch) > 1 else "")
        futures.append(in_turn.with_options(task_run_name=name).submit(batch))
    documents = 0
    with bar(stage, len(calls)) as advance:
        for future in as_completed(futures):
            parts = future.result()
            documents += sum(part.account.read.rows for part in parts)
            advance(len(parts), f"{documents:,} documents" if documents else "")
    return [part for future in futures for part in future.result()]


@flow(name="build", flow_run_name="build {config.out}", task_runner=task_runner())
def build(config: Build) -> str:
    """Build a catalog and return its folder."""
    return str(run.build(config, each=as_tasks))


@flow(name="add", flow_run_name="add to {catalog}", task_runner=task_runner())
def add(catalog: Path, addition: Addition) -> str:
    """Add documents or targets to a catalog and return its folder."""
    return str(add_to(catalog, addition, each=as_tasks))
