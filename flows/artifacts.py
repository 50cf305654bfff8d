"""What a flow run shows in Prefect's UI: how far each stage is, tables, a summary, links to the pages. A view: it never fails a run.

Strings are markdown there, also in cells of tables, and much of ours was written by strangers: `escape_markdown` takes all meaning from it.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger

import data_catalog
from data_catalog.untrusted import UNPRINTABLE
from flows.pages.run import summary_table
from flows.pages.run.data import read_runs

PAGES_URL_VARIABLE = "CLUSTERMIX_PAGES_URL"  # where the folder that flows run in is served, for links that a browser follows
UPDATE_SECONDS = 2.0  # between two updates of a stage's progress
MAXIMUM_ARTIFACT_CHARACTERS = 200  # characters of a cell


def escape_markdown(text: Any) -> str:
    """`text` for markdown: no link, tag, address or formatting in it has an effect, and it stays on its line."""
    found = UNPRINTABLE.sub(" ", str(text))
    found = (
        found
        if len(found) <= MAXIMUM_ARTIFACT_CHARACTERS
        else found[: MAXIMUM_ARTIFACT_CHARACTERS - 1] + "…"
    )
    return re.sub(r"[!-+.:<-@\[-`{-~]", lambda match: f"&#{ord(match[0])};", found)


def artifact_key(*parts: str) -> str:
    """A key as Prefect allows it: lower-case letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


@contextmanager
def best_effort(what: str) -> Iterator[None]:
    """Tell Prefect something; what goes wrong is a line in the flow run's log and no more."""
    try:
        yield
    except Exception as error:
        get_run_logger().warning(
            "%s: Prefect was not told: %s: %s", what, type(error).__name__, error
        )


def within_flow_run() -> bool:
    """Whether there is a flow run to show something of; a flow's plain function runs without one."""
    return FlowRunContext.get() is not None


def stage_progress(stage: str, total: int) -> Callable[[int, str], None]:
    """`advance(done, note)` of a bar; the server hears of it every two seconds at most, and of the end. What is over by then has no bar."""
    if not within_flow_run():
        return lambda _done, _note: None
    bar: UUID | None = None
    heard = time.monotonic()

    def advance(done: int, note: str) -> None:
        nonlocal bar, heard
        now = time.monotonic()
        if now - heard < UPDATE_SECONDS and (bar is None or done < total):
            return
        heard = now
        share, words = (
            100.0 * min(done / total, 1.0),
            f"{stage}: {done:,} of {total:,} {note}".rstrip(),
        )
        with best_effort(stage):
            if bar is None:
                bar = cast(UUID, create_progress_artifact(share, description=words))
            else:
                update_progress_artifact(bar, share, description=words)

    return advance


def show_table(name: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """A table whose cells may hold anything; `name` becomes its key."""
    if rows:
        cells = [
            {
                column: value if isinstance(value, int | float) else escape_markdown(value)
                for column, value in row.items()
            }
            for row in rows
        ]
        create_table_artifact(cells, key=artifact_key(name), description=description)


def show_link(name: str, page: Path) -> None:
    """A link to a page of ours. A browser does not follow links to files: `CLUSTERMIX_PAGES_URL` says where the folder is served."""
    path, base = page.resolve(), os.environ.get(PAGES_URL_VARIABLE)
    inside = path.is_relative_to(Path.cwd())
    address = (
        f"{base.rstrip('/')}/{quote(path.relative_to(Path.cwd()).as_posix())}"
        if base and inside
        else path.as_uri()
    )
    create_link_artifact(
        address,
        link_text=escape_markdown(path),
        key=artifact_key(name),
        description=f"The page, as a file: {escape_markdown(path)}",
    )


def show_catalog(root: Path, page: Path) -> None:
    """Of a finished build: a summary, documents by stage, what was dropped by which rule, the levels of the tree, the page."""
    if not within_flow_run():
        return
    with best_effort("the catalog"):
        catalog = data_catalog.open(root)
        manifest = catalog.manifest
        levels = " → ".join(f"{k:,}" for k in catalog.levels.granularities)
        sentences = [
            f"**{manifest['documents']:,} documents** of {manifest['tokens']:,} tokens in {levels} domains, "
            f"version {catalog.version}, in {escape_markdown(root)}.",
            f"Targets: {escape_markdown(', '.join(manifest['targets']) or 'none')}. Fingerprint: {escape_markdown(manifest['fingerprint'])}.",
            *(f"- {escape_markdown(warning)}" for warning in manifest.get("warnings") or ()),
        ]
        create_markdown_artifact(
            "\n\n".join(sentences),
            key=artifact_key("catalog", root.name),
            description="What was built",
        )
        for name, (query, description) in CATALOG_TABLES.items():
            show_table(f"catalog-{root.name}-{name}", catalog.table(query).to_pylist(), description)
        show_link(f"catalog-{root.name}-page", page)


CATALOG_TABLES = {  # of a catalog: the end of the key -> query, description
    "stages": (
        """SELECT stage, sum(rows) FILTER (outcome = 'read')::BIGINT AS read, sum(rows) FILTER (outcome = 'kept')::BIGINT AS kept,
               coalesce(sum(rows) FILTER (outcome = 'dropped'), 0)::BIGINT AS dropped,
               coalesce(sum(rows) FILTER (outcome = 'failed'), 0)::BIGINT AS failed
           FROM accounting GROUP BY stage
           ORDER BY min(list_position(['source', 'quality', 'dedup', 'embed', 'assign', 'semantic', 'sort', 'shard'], stage))""",
        "Documents by stage",
    ),
    "dropped": (
        """SELECT stage, reason, rows AS documents, characters FROM accounting
           WHERE outcome IN ('dropped', 'failed') ORDER BY rows DESC, stage, reason""",
        "What was dropped, by rule",
    ),
    "levels": (
        """SELECT level, count(*) AS domains, min(documents) AS smallest, median(documents)::BIGINT AS median, max(documents) AS largest,
               sum(tokens)::BIGINT AS tokens
           FROM domains GROUP BY level ORDER BY level""",
        "The levels of the tree",
    ),
    "largest": (
        """SELECT domain, documents, tokens, array_to_string(terms[1:6], ', ') AS terms FROM domains
           WHERE level = (SELECT min(level) FROM domains) ORDER BY tokens DESC, domain LIMIT 16""",
        "The largest domains of the coarsest level",
    ),
}
LOSS_COLUMNS = {  # printed name -> key of `summary_table`
    "run": "run",
    "mixer": "mixer",
    "target": "target",
    "target loss": "target_test_loss",
    "general loss": "general_loss",
    "tokens": "tokens",
    "repeats": "repeats",
    "seconds": "seconds",
}


def show_runs(name: str, runs: Sequence[Path], page: Path) -> None:
    """Of one finished run, or of several to compare: their losses (nats a token), the last weights of one, the page."""
    if not within_flow_run():
        return
    with best_effort("the runs"):
        rows = [
            {label: round_for_reader(row[column]) for label, column in LOSS_COLUMNS.items()}
            for row in summary_table(runs)
        ]
        show_table(
            f"{name}-losses",
            rows,
            "Losses in nats per token on held-out text; repeats: sequences drawn / distinct ones",
        )
        if len(runs) == 1:
            [run] = read_runs(runs)
            if run.weights is not None:
                final = sorted(
                    zip(run.basis, run.weights.sampling[-1].tolist(), strict=True),
                    key=lambda pair: -pair[1],
                )
                rows = [
                    {"member": member, "weight": round_for_reader(weight)}
                    for member, weight in final[:64]
                ]
                show_table(f"{name}-weights", rows, "The last weights, the largest first")
        show_link(f"{name}-page", page)


def round_for_reader(value: Any) -> Any:
    """A number for a reader; a dash for what was not measured."""
    return "–" if value is None else round(value, 4) if isinstance(value, float) else value
