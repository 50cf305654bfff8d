"""What Prefect's users see of a build: names, tags, tables, a summary, the page, an event; and limits by tag."""

import threading
import time

import pytest

import data_catalog
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.manifest import read_manifest
from data_catalog.format.verify import check
from data_catalog.settings import parse
from flows.artifacts import artifact_key, escape_markdown
from pipeline.parts import Part


@pytest.fixture(scope="module")
def build_run(built, tmp_path_factory, prefect_server):
    """A build of the small corpus by the flow, and its run; the catalog's name is a stranger's."""
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

    found = client().read_artifacts(
        artifact_filter=ArtifactFilter.model_validate({"flow_run_id": {"any_": [run.id]}})
    )
    return {artifact.key: artifact for artifact in found if artifact.key}


def test_the_catalog_has_its_page_and_is_sound(built, build_run):
    root, _ = build_run
    assert "<html" in (root / "report.html").read_text()
    assert not check(root).faults
    assert read_manifest(root).fingerprint == read_manifest(built[0]).fingerprint


def test_names_and_tags(build_run):
    from prefect.client.schemas.filters import FlowRunFilter

    root, run = build_run
    assert run.name == f"build {root}"
    assert run.tags == sorted(["clustermix", "build", root.name])
    tasks, deadline = [], time.monotonic() + 60
    while (
        len(tasks) < 18 and time.monotonic() < deadline
    ):  # the server writes them down after the flow has ended
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


def test_tables_say_what_the_catalog_says(build_run):
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


def test_a_strangers_name_has_no_effect_in_what_is_shown(build_run):
    root, run = build_run
    for artifact in artifacts_of(run).values():
        assert "](javascript" not in str(artifact.data) + str(artifact.description)
        assert "<b>" not in str(artifact.data) + str(artifact.description)
    page = artifacts_of(run)[f"{artifact_key('catalog', root.name)}-page"]
    assert page.data.endswith(f"({(root / 'report.html').resolve().as_uri()})")
    assert page.data.count("](") == 1


def test_what_is_escaped_means_nothing_in_markdown():
    assert escape_markdown("gene, cells-2/x") == "gene, cells-2/x"
    assert (
        escape_markdown("[a](b) <c> www.d.e\u202e\x00\nf")
        == "&#91;a&#93;&#40;b&#41; &#60;c&#62; www&#46;d&#46;e   f"
    )
    assert len(escape_markdown("x" * 5_000_000)) == 200


def test_pages_link_to_where_their_folder_is_served(tmp_path, monkeypatch):
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


def test_an_event_says_what_was_built(build_run):
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


def test_a_limit_on_a_stages_tag_holds(tmp_path, prefect_server):
    from prefect import flow

    from flows.build import as_tasks
    from flows.runners import task_runner

    at_work, most, lock = 0, 0, threading.Lock()

    def part(folder):
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.2)
        with lock:
            at_work -= 1
        return Part(folder, "f", Account(read=Tally(rows=1), kept=Tally(rows=1)), 0.0)

    @flow(task_runner=task_runner(workers=2))
    def stage(name):
        as_tasks(name, part, [(tmp_path / name,) for name in "ab"])

    client().create_concurrency_limit(tag="clustermix-narrow", concurrency_limit=1)
    stage("wide")
    assert most == 2
    most = 0
    stage("narrow")
    assert most == 1


def test_a_server_that_takes_no_artifacts_fails_no_build(
    built, tmp_path, prefect_server, monkeypatch
):
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
    artifacts.show_catalog(
        built[0], tmp_path / "report.html"
    )  # nor does a flow's plain function, which no server hears of
