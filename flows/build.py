"""The build as a Prefect flow: the story of `pipeline/run.py`, each part a task run with a name and retries."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from data_catalog.errors import AccountingError, UserError
from flows.progress import bar
from pipeline import run
from pipeline.config import Build
from pipeline.parts import Part

WORKERS = 4  # threads: torch, FAISS, DuckDB and Arrow leave Python's lock; embedding is one model and takes its turn


def worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    """A broken disk or network may heal; a wrong request or a lost document will not."""
    failure = state.result(raise_on_failure=False)
    return not isinstance(failure, (UserError, AccountingError))


def as_tasks(stage: str, function: Callable[..., Part], calls: Sequence[tuple[Any, ...]]) -> list[Part]:
    """Run the parts of one stage as Prefect tasks; results in the order of `calls`.

    Prefect's cache is not used: a part's sidecar alone decides what is done.
    """
    wrap = task(name=stage, retries=2, retry_delay_seconds=1, retry_condition_fn=worth_a_retry, cache_policy=NO_CACHE)
    stage_task = wrap(function)
    futures = []
    for arguments in calls:
        folder = next(argument for argument in arguments if isinstance(argument, Path))
        futures.append(stage_task.with_options(task_run_name=f"{stage}/{folder.name}").submit(*arguments))
    documents = 0
    with bar(stage, len(futures)) as advance:
        for future in as_completed(futures):
            documents += future.result().account.read.rows
            advance(1, f"{documents:,} documents" if documents else "")
    return [future.result() for future in futures]


@flow(
    name="build",
    flow_run_name="build {config.out}",
    task_runner=ThreadPoolTaskRunner(max_workers=WORKERS),  # type: ignore[arg-type] # futures are invariant in its stub
)
def build(config: Build) -> str:
    """Build a catalog and return its folder."""
    return str(run.build(config, each=as_tasks))
