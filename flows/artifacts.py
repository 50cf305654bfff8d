"""Artifacts in Prefect's UI: progress of stages, tables, summaries and links to pages.

Artifacts never fail a flow run. Prefect renders their text as markdown, also in the cells of
tables, and much text is untrusted. `escape_markdown` removes all markup.
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
from data_catalog.place import Folder, Place
from data_catalog.untrusted import UNPRINTABLE
from flows.pages.run import summary_table
from flows.pages.run.data import read_runs

PAGES_URL_VARIABLE = "CLUSTERMIX_PAGES_URL"  # base URL of the folder that flows run in
UPDATE_SECONDS = 2.0  # minimum time between updates of a progress bar
MAXIMUM_ARTIFACT_CHARACTERS = 200  # per cell
MAXIMUM_WEIGHT_ROWS = 64
CATALOG_TABLES = {  # end of the artifact's key -> query, description
    "stages": (
        """SELECT stage,
               sum(rows) FILTER (outcome = 'read')::BIGINT AS read,
               sum(rows) FILTER (outcome = 'kept')::BIGINT AS kept,
               coalesce(sum(rows) FILTER (outcome = 'dropped'), 0)::BIGINT AS dropped,
               coalesce(sum(rows) FILTER (outcome = 'failed'), 0)::BIGINT AS failed
           FROM accounting GROUP BY stage
           ORDER BY min(list_position(
               ['source', 'quality', 'dedup', 'embed', 'assign', 'semantic', 'sort', 'shard'], stage
           ))""",
        "Documents per stage",
    ),
    "dropped": (
        """SELECT stage, reason, rows AS documents, characters FROM accounting
           WHERE outcome IN ('dropped', 'failed') ORDER BY rows DESC, stage, reason""",
        "Dropped documents per rule",
    ),
    "levels": (
        """SELECT level, count(*) AS domains, min(documents) AS smallest,
               median(documents)::BIGINT AS median, max(documents) AS largest,
               sum(tokens)::BIGINT AS tokens
           FROM domains GROUP BY level ORDER BY level""",
        "Levels of the tree, with the number of documents in their domains",
    ),
    "largest": (
        """SELECT domain, documents, tokens, array_to_string(terms[1:6], ', ') AS terms
           FROM domains WHERE level = (SELECT min(level) FROM domains)
           ORDER BY tokens DESC, domain LIMIT 16""",
        "Largest domains of the coarsest level",
    ),
}
LOSS_COLUMNS = {  # heading -> key of `summary_table`
    "run": "run",
    "mixer": "mixer",
    "target": "target",
    "target loss": "target_test_loss",
    "general loss": "general_loss",
    "tokens": "tokens",
    "repeats": "repeats",
    "seconds": "seconds",
}


def escape_markdown(text: Any) -> str:
    """Return `text` on one line, escaped so that markdown renders it literally."""
    line = UNPRINTABLE.sub(" ", str(text))
    ellipsis = ""
    if len(line) > MAXIMUM_ARTIFACT_CHARACTERS:
        line, ellipsis = line[: MAXIMUM_ARTIFACT_CHARACTERS - 3], "..."
    return re.sub(r"[!-+.:<-@\[-`{-~]", lambda match: f"&#{ord(match[0])};", line) + ellipsis


def artifact_key(*parts: str) -> str:
    """Return a key that Prefect accepts: lower-case letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


@contextmanager
def best_effort(subject: str) -> Iterator[None]:
    """Log errors of the block as warnings of the flow run instead of raising them."""
    try:
        yield
    except Exception as error:
        get_run_logger().warning(
            "%s: not shown in Prefect: %s: %s", subject, type(error).__name__, error
        )


def within_flow_run() -> bool:
    """Return whether a flow run is active. The plain function of a flow runs without one."""
    return FlowRunContext.get() is not None


def stage_progress(stage: str, total: int) -> Callable[[int, str], None]:
    """Return `advance(done, note)` for a progress artifact.

    The server gets at most one update every `UPDATE_SECONDS`, and the last one. A stage that is
    finished before the first update has no artifact.
    """
    if not within_flow_run():
        return lambda _done, _note: None
    artifact: UUID | None = None
    updated = time.monotonic()

    def advance(done: int, note: str) -> None:
        nonlocal artifact, updated
        now = time.monotonic()
        if now - updated < UPDATE_SECONDS and (artifact is None or done < total):
            return
        updated = now
        percent = 100.0 * min(done / total, 1.0)
        description = f"{stage}: {done:,} of {total:,} {note}".rstrip()
        with best_effort(stage):
            if artifact is None:
                artifact = cast(UUID, create_progress_artifact(percent, description=description))
            else:
                update_progress_artifact(artifact, percent, description=description)

    return advance


def show_table(name: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Create a table artifact from untrusted values. Its key is derived from `name`."""
    if rows:
        cells = [
            {
                column: value if isinstance(value, int | float) else escape_markdown(value)
                for column, value in row.items()
            }
            for row in rows
        ]
        create_table_artifact(cells, key=artifact_key(name), description=description)


def show_link(name: str, page: Folder) -> None:
    """Create a link artifact to a page.

    Browsers do not follow links from Prefect's UI to local files. The environment variable
    CLUSTERMIX_PAGES_URL gives the address at which the current folder is served.
    """
    base = os.environ.get(PAGES_URL_VARIABLE)
    path = page if isinstance(page, Place) else page.resolve()
    if isinstance(path, Place):
        url = path.url
    elif base and path.is_relative_to(Path.cwd()):
        url = f"{base.rstrip('/')}/{quote(path.relative_to(Path.cwd()).as_posix())}"
    else:
        url = path.as_uri()
    create_link_artifact(
        url,
        link_text=escape_markdown(path),
        key=artifact_key(name),
        description=f"File: {escape_markdown(path)}",
    )


def show_page(name: str, page: Path) -> None:
    """Create a link artifact to a page of the current flow run, if there is one."""
    if within_flow_run():
        with best_effort("the page"):
            show_link(name, page)


def show_catalog(root: Folder, page: Folder) -> None:
    """Create the artifacts of a finished build: a summary, tables, and a link to the page."""
    if not within_flow_run():
        return
    with best_effort("the catalog"):
        catalog = data_catalog.open(root)
        manifest = catalog.manifest
        levels = ", ".join(f"{k:,}" for k in catalog.levels.granularities)
        targets = escape_markdown(", ".join(manifest.targets) or "none")
        paragraphs = [
            f"**{manifest.documents:,} documents** with {manifest.tokens:,} tokens. "
            f"Domains per level: {levels}.",
            f"Version {catalog.version} in {escape_markdown(root)}. Targets: {targets}. "
            f"Fingerprint: {escape_markdown(manifest.fingerprint)}.",
            *(f"- {escape_markdown(warning)}" for warning in manifest.warnings),
        ]
        key = artifact_key("catalog", root.name)
        create_markdown_artifact("\n\n".join(paragraphs), key=key, description="Built catalog")
        for name, (query, description) in CATALOG_TABLES.items():
            rows = catalog.table(query).to_pylist()
            show_table(f"catalog-{root.name}-{name}", rows, description)
        show_link(f"catalog-{root.name}-page", page)


def show_runs(name: str, runs: Sequence[Path], page: Folder) -> None:
    """Create the artifacts of finished runs: losses, the final weights of a single run, a link."""
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
            "Losses in nats per token on held-out text. "
            "Repeats: sampled sequences divided by distinct sampled sequences",
        )
        if len(runs) == 1:
            _show_final_weights(name, runs[0])
        show_link(f"{name}-page", page)


def _show_final_weights(name: str, folder: Path) -> None:
    [run] = read_runs([folder])
    if run.weights is None:
        return
    weights = zip(run.basis, run.weights.sampling[-1].tolist(), strict=True)
    largest = sorted(weights, key=lambda pair: -pair[1])[:MAXIMUM_WEIGHT_ROWS]
    rows = [{"member": member, "weight": round_for_reader(weight)} for member, weight in largest]
    show_table(f"{name}-weights", rows, "Final weights, largest first")


def round_for_reader(value: Any) -> Any:
    """Return a number rounded to four decimals, and a dash for None."""
    if value is None:
        return "-"
    return round(value, 4) if isinstance(value, float) else value
