"""A build in Prefect: names, tags, artifacts, the event, and concurrency limits."""

import threading
import time
from functools import partial

import pytest

import data_catalog
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.manifest import read_manifest
from data_catalog.settings import parse
from data_catalog.verify import check
from flows.artifacts import artifact_key, escape_markdown
from pipeline.parts import Part


@pytest.fixture(scope="module")
def build_run(built, tmp_path_factory, prefect_url):
    """Build with the flow in a folder with a hostile name. Return the folder and the flow run."""
    from flows.build import build
    from pipeline.config import Build

    root = tmp_path_factory.mktemp("flow") / "Cats [x](javascript:alert(1)) <b>"
    state = build(parse(Build, {**built[1], "out": str(root)}, "test"), return_state=True)
    assert state.result() == str(root)
    return root, client().read_flow_run(state.state_details.flow_run_id)


def client():
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True)


def artifacts_of(run):
    from prefect.client.schemas.filters import ArtifactFilter

    artifacts = client().read_artifacts(
        artifact_filter=ArtifactFilter.model_validate({"flow_run_id": {"any_": [run.id]}})
    )
    return {artifact.key: artifact for artifact in artifacts if artifact.key}


def test_the_built_catalog_has_a_page_and_no_faults(built, build_run):
    root, _ = build_run
    assert "<html" in (root / "report.html").read_text()
    assert not check(root).faults
    assert read_manifest(root).fingerprint == read_manifest(built[0]).fingerprint


def test_flow_and_task_runs_have_names_and_tags(build_run):
    from prefect.client.schemas.filters import FlowRunFilter

    root, run = build_run
    assert run.name == f"build {root}"
    assert run.tags == sorted(["clustermix", "build", root.name])
    tasks, deadline = [], time.monotonic() + 60
    # The server records task runs after the end of the flow.
    while len(tasks) < 18 and time.monotonic() < deadline:
        tasks = client().read_task_runs(
            flow_run_filter=FlowRunFilter.model_validate({"id": {"any_": [run.id]}})
        )
    names = {task.name for task in tasks}
    assert {
        "source/part-0",
        "source/part-1",
        "embed/part-0",
        "tree/all",
        "targets/space",
        "domains/all",
    } <= names
    [embed] = [task for task in tasks if task.name == "embed/part-0"]
    assert set(embed.tags) == {"clustermix", "clustermix-embed", root.name}


def test_table_artifacts_match_the_catalog(build_run):
    import json

    root, run = build_run
    found = artifacts_of(run)
    name = artifact_key("catalog", root.name)
    assert name == "catalog-cats-x-javascript-alert-1-b"
    stages = {row["stage"]: row for row in json.loads(found[f"{name}-stages"].data)}
    assert stages["source"] == {
        "stage": "source",
        "read": 163,
        "kept": 161,
        "dropped": 0,
        "failed": 2,
    }
    assert stages["dedup"] == {
        "stage": "dedup",
        "read": 161,
        "kept": 160,
        "dropped": 1,
        "failed": 0,
    }
    assert json.loads(found[f"{name}-dropped"].data)[0] == {
        "stage": "dedup",
        "reason": "dedup&#46;digest",
        "documents": 1,
        "characters": 102,
    }
    levels = json.loads(found[f"{name}-levels"].data)
    assert [(row["level"], row["domains"]) for row in levels] == [(2, 2), (4, 4)]
    largest = json.loads(found[f"{name}-largest"].data)
    terms = (
        data_catalog.open(root)
        .table("SELECT terms FROM domains WHERE level = 2 ORDER BY tokens DESC, domain")["terms"]
        .to_pylist()
    )
    assert [row["terms"] for row in largest] == [", ".join(found[:6]) for found in terms]


def test_a_hostile_name_has_no_effect_in_artifacts(build_run):
    root, run = build_run
    for artifact in artifacts_of(run).values():
        assert "](javascript" not in str(artifact.data) + str(artifact.description)
        assert "<b>" not in str(artifact.data) + str(artifact.description)
    page = artifacts_of(run)[f"{artifact_key('catalog', root.name)}-page"]
    assert page.data.endswith(f"({(root / 'report.html').resolve().as_uri()})")
    assert page.data.count("](") == 1


def test_escaped_text_has_no_markdown():
    assert escape_markdown("gene, cells-2/x") == "gene, cells-2/x"
    assert (
        escape_markdown("[a](b) <c> www.d.e\u202e\x00\nf")
        == "&#91;a&#93;&#40;b&#41; &#60;c&#62; www&#46;d&#46;e   f"
    )
    assert len(escape_markdown("x" * 5_000_000)) == 200


def test_links_use_the_address_of_the_served_folder(tmp_path, monkeypatch):
    from flows import artifacts

    links = []
    monkeypatch.setattr(
        artifacts, "create_link_artifact", lambda address, **_: links.append(address)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLUSTERMIX_PAGES_URL", "http://pages.example/")
    artifacts.show_link("a", tmp_path / "runs" / "a b" / "report.html")
    artifacts.show_link("b", tmp_path.parent / "report.html")
    assert links == [
        "http://pages.example/runs/a%20b/report.html",
        (tmp_path.parent / "report.html").resolve().as_uri(),
    ]


def test_a_build_emits_an_event(build_run):
    root, run = build_run
    found, deadline = [], time.monotonic() + 60
    while not found and time.monotonic() < deadline:
        body = {
            "filter": {
                "event": {"name": ["clustermix.catalog.built"]},
                "resource": {"id": [f"clustermix.catalog.{root}"]},
            }
        }
        found = client().request("POST", "/events/filter", json=body).json()["events"]
    [event] = found
    assert event["resource"]["clustermix.path"] == str(root)
    assert event["payload"]["catalog"] == str(root)
    assert event["payload"]["documents"] == 160
    assert event["payload"]["targets"] == ["space"]
    assert f"prefect.flow-run.{run.id}" in [
        related["prefect.resource.id"] for related in event["related"]
    ]


def test_a_concurrency_limit_on_the_tag_of_a_stage(tmp_path, prefect_server):
    from prefect import flow

    from flows.build import as_tasks
    from flows.runners import task_runner

    running, maximum, lock = 0, 0, threading.Lock()
    work = threading.Barrier(2, timeout=60).wait  # ends when both parts are running

    def part(folder):
        nonlocal running, maximum
        with lock:
            running += 1
            maximum = max(maximum, running)
        work()
        with lock:
            running -= 1
        return Part(folder, "f", Account(read=Tally(rows=1), kept=Tally(rows=1)), 0.0)

    @flow(task_runner=task_runner(workers=2))
    def stage(name):
        as_tasks(name, part, [(tmp_path / name,) for name in "ab"])

    client().create_concurrency_limit(tag="clustermix-narrow", concurrency_limit=1)
    stage("wide")
    assert maximum == 2
    maximum, work = 0, partial(time.sleep, 0.2)
    stage("narrow")
    assert maximum == 1


def test_a_failing_server_does_not_fail_a_build(built, tmp_path, prefect_server, monkeypatch):
    from prefect import flow

    from flows import artifacts

    def refuse(*_, **__):
        raise ConnectionError("no server")

    monkeypatch.setattr(artifacts, "create_markdown_artifact", refuse)
    monkeypatch.setattr(artifacts, "create_progress_artifact", refuse)
    monkeypatch.setattr(artifacts, "UPDATE_SECONDS", 0.0)

    @flow
    def show():
        artifacts.stage_progress("embed", 2)(1, "")
        artifacts.show_catalog(built[0], tmp_path / "report.html")
        return "shown"

    assert show() == "shown"
    # Outside of a flow run, nothing is sent to a server.
    artifacts.show_catalog(built[0], tmp_path / "report.html")
