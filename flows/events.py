"""Prefect events and tags, for automations that react to finished catalogs and runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.events import emit_event

from data_catalog.format.manifest import read_manifest
from data_catalog.place import Folder, Place
from flows.artifacts import best_effort, round_for_reader, within_flow_run
from flows.pages.run import summary_table

CATALOG_BUILT_EVENT = "clustermix.catalog.built"
RUN_FINISHED_EVENT = "clustermix.run.finished"
CATALOG_KEYS = ("version", "fingerprint", "documents", "tokens", "granularities", "targets")
RUN_KEYS = ("mixer", "target", "steps", "tokens", "target_test_loss", "general_loss", "seconds")


def emit_folder_event(event: str, folder: Folder, payload: Mapping[str, Any]) -> None:
    """Emit an event about a folder. Does nothing outside of a flow run, and never raises."""
    if not within_flow_run():
        return
    with best_effort(event):
        kind = event.split(".")[1]
        path = folder if isinstance(folder, Place) else folder.resolve()
        resource = {
            "prefect.resource.id": f"clustermix.{kind}.{path}",
            "prefect.resource.name": path.name,
            "clustermix.path": str(path),
        }
        emit_event(event, resource=resource, payload={kind: str(path), **payload})


def emit_catalog_built(root: Folder) -> None:
    """Emit an event: the catalog at `root` has a new version, or was already complete."""
    manifest = read_manifest(root)
    emit_folder_event(
        CATALOG_BUILT_EVENT, root, {name: manifest.content()[name] for name in CATALOG_KEYS}
    )


def emit_run_finished(run: Folder, folder: Path) -> None:
    """Emit an event: a run is finished, whose small files are in `folder`."""
    [row] = summary_table([folder])
    payload = {
        name: None if row[name] is None else round_for_reader(row[name]) for name in RUN_KEYS
    }
    emit_folder_event(RUN_FINISHED_EVENT, run, payload)


def tag_flow_run(*tags: str) -> None:
    """Add tags to the current flow run. Its other tags are kept."""
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        with best_effort("tags"):
            get_client(sync_client=True).update_flow_run(
                context.flow_run.id, tags=sorted({*context.flow_run.tags, *tags})
            )
