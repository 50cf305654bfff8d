"""What other flows and automations hear of: events when a catalog was built or a run has ended, and the tags of a flow run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.events import emit_event

from data_catalog.format.manifest import read_manifest
from flows.artifacts import best_effort, round_for_reader, within_flow_run
from flows.pages.run import summary_table

CATALOG_BUILT_EVENT = "clustermix.catalog.built"
RUN_FINISHED_EVENT = "clustermix.run.finished"


def emit_folder_event(event: str, folder: Path, payload: Mapping[str, Any]) -> None:
    """Say what happened to a catalog's or a run's folder; without a flow run nobody is told, and nothing fails."""
    if not within_flow_run():
        return
    with best_effort(event):
        kind = event.split(".")[1]
        path = folder.resolve()
        resource = {
            "prefect.resource.id": f"clustermix.{kind}.{path}",
            "prefect.resource.name": path.name,
            "clustermix.path": str(path),
        }
        emit_event(event, resource=resource, payload={kind: str(path), **payload})


def emit_catalog_built(root: Path) -> None:
    """The catalog at `root` has a new version, or was found to be finished."""
    manifest = read_manifest(root)
    facts = ("version", "fingerprint", "documents", "tokens", "granularities", "targets")
    emit_folder_event(CATALOG_BUILT_EVENT, root, {name: manifest[name] for name in facts})


def emit_run_finished(run: Path) -> None:
    """The run in this folder has come to its end."""
    [row] = summary_table([run])
    facts = ("mixer", "target", "steps", "tokens", "target_test_loss", "general_loss", "seconds")
    emit_folder_event(
        RUN_FINISHED_EVENT,
        run,
        {name: None if row[name] is None else round_for_reader(row[name]) for name in facts},
    )


def tag_flow_run(*tags: str) -> None:
    """Add tags to the flow run that is under way, beside those it was started with."""
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        with best_effort("tags"):
            get_client(sync_client=True).update_flow_run(
                context.flow_run.id, tags=sorted({*context.flow_run.tags, *tags})
            )
