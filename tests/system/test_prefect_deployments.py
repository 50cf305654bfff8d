"""Prefect forms of all parameters, and the deployments of `prefect.yaml` run by a real worker."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from data_catalog.format.manifest import read_manifest
from data_catalog.settings import parse
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import ROOT, tiny_config
from tests.system.test_prefect_stopping import records, step, trainers

PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]


def client():
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True)


@pytest.fixture(scope="module", autouse=True)
def server(prefect_url):
    """The server of all processes that these tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", prefect_url)
        yield


@pytest.fixture(scope="module")
def deployed(server):
    """Register the deployments of `prefect.yaml` and return them by name."""
    from prefect.client.schemas.actions import WorkPoolCreate

    client().create_work_pool(WorkPoolCreate(name="clustermix", type="process"))
    done = subprocess.run(
        [*PREFECT, "deploy", "--all"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {deployment.name: deployment for deployment in client().read_deployments()}


def environment(**more):
    return {**os.environ, "PREFECT_LOGGING_LEVEL": "INFO", "PYTHONPATH": str(ROOT), **more}


def test_the_form_has_every_key_of_a_config(deployed):
    from prefect.utilities.callables import parameter_schema

    from flows.build import build
    from pipeline.config import Build

    schema = parameter_schema(build).model_dump()
    assert schema == deployed["build"].parameter_openapi_schema
    assert schema["required"] == ["config"]
    assert schema["properties"]["config"]["description"]
    assert set(schema["definitions"]["Build"]["properties"]) == set(Build.model_fields)
    assert (
        schema["definitions"]["Build"]["properties"]["source"]["discriminator"]["propertyName"]
        == "kind"
    )
    kinds = set(schema["definitions"]["Build"]["properties"]["source"]["discriminator"]["mapping"])
    assert kinds >= {"rpv2", "jsonl", "parquet", "dataset", "python-docs"}
    assert schema["definitions"]["Quality"]["properties"]["preset"]["enum"] == [
        "gopher",
        "together",
        "c4",
        "lucie",
        "none",
    ]
    for deployment in deployed.values():  # a field without a type is one that Prefect cannot show
        for name, field in deployment.parameter_openapi_schema["properties"].items():
            assert {"$ref", "type", "anyOf", "allOf"} & set(field), (deployment.name, name)
            assert field["description"], (deployment.name, name)


def test_deployments_have_entry_points_limits_and_valid_parameters(deployed):
    from flows.recipe import Recipe, planned_runs
    from pipeline.config import Addition, Build
    from trainer.config import Train

    assert {name: deployment.entrypoint for name, deployment in deployed.items()} == {
        "build": "flows.build.build",
        "add-nightly": "flows.build.add",
        "train": "flows.train.train",
        "experiment": "flows.experiment.experiment",
    }
    assert {deployment.global_concurrency_limit.limit for deployment in deployed.values()} == {1}
    assert {deployment.work_pool_name for deployment in deployed.values()} == {"clustermix"}
    [schedule] = deployed["add-nightly"].schedules
    assert (schedule.schedule.cron, schedule.active) == ("0 3 * * *", False)
    parse(Build, deployed["build"].parameters["config"], "build")
    parse(Addition, deployed["add-nightly"].parameters["addition"], "add")
    parse(Train, deployed["train"].parameters["config"], "train")
    planned_runs(parse(Recipe, deployed["experiment"].parameters["recipe"], "experiment"))
    [automation] = client().request("POST", "/automations/filter", json={}).json()
    assert (automation["enabled"], automation["trigger"]["expect"]) == (
        False,
        ["clustermix.catalog.built"],
    )


def test_invalid_parameters_are_refused_before_a_run_is_created(deployed, built):
    for change, key in (
        ({"sorce": 1}, "sorce"),
        ({"source": {"kind": "jsonl"}}, "config.source"),
        ({"seed": "x"}, "config.seed"),
    ):
        with pytest.raises(httpx.HTTPStatusError, match="409") as refused:
            client().create_flow_run_from_deployment(
                deployed["build"].id, parameters={"config": {**built[1], **change}}
            )
        assert key in refused.value.response.text
    run = client().create_flow_run_from_deployment(
        deployed["build"].id, parameters={"config": built[1]}
    )
    assert run.state.is_scheduled()
    client().delete_flow_run(run.id)


@pytest.mark.slow
def test_a_worker_builds_from_json_parameters(deployed, built, tmp_path):
    config = {**built[1], "out": str(tmp_path / "catalog")}
    run = client().create_flow_run_from_deployment(
        deployed["build"].id, parameters={"config": config}
    )
    worker = [*PREFECT, "worker", "start", "--pool", "clustermix", "--run-once"]
    subprocess.run(worker, cwd=tmp_path, env=environment(), capture_output=True, check=True)
    assert client().read_flow_run(run.id).state.name == "Completed"
    assert read_manifest(tmp_path / "catalog").fingerprint == read_manifest(built[0]).fingerprint


@pytest.mark.slow
def test_a_cancelled_training_saves_a_checkpoint_and_can_be_resumed(
    deployed, tmp_path, monkeypatch
):
    from prefect.states import Cancelling

    monkeypatch.setenv("STOPPING_TEST", str(tmp_path))
    changed = {
        "training": {"steps": 300},
        "checkpoint": {"every_steps": 1000},
        "evaluation": {"every_steps": 0},
    }
    settings = tiny_config(write_tiny_catalog(tmp_path / "catalog"), tmp_path / "run", **changed)
    parameters = {"config": json.loads(settings.model_dump_json())}
    command = [*PREFECT, "worker", "start", "--pool", "clustermix", "--work-queue", "train"]
    output = (tmp_path / "worker.log").open("w")
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=output, stderr=output
    ) as worker:
        try:
            run = client().create_flow_run_from_deployment(
                deployed["train"].id, parameters=parameters
            )
            wait(lambda: step(tmp_path / "run") > 3)
            client().set_flow_run_state(run.id, Cancelling())
            assert final_state(run) == "Cancelled"
            wait(lambda: not trainers(tmp_path))
            reached = step(tmp_path / "run")
            assert reached < 300
            assert (tmp_path / "run" / "checkpoints" / f"{reached:010d}").is_dir()
            again = client().create_flow_run_from_deployment(
                deployed["train"].id, parameters=parameters
            )
            assert final_state(again) == "Completed"
        finally:
            worker.send_signal(signal.SIGTERM)
    assert [record["step"] for record in records(tmp_path / "run", "train")] == list(range(1, 301))
    assert (Path(tmp_path) / "run" / "report.html").is_file()


def final_state(run):
    """Wait for a flow run to end, and return its final state."""
    current = client().read_flow_run(run.id)
    while not current.state.is_final():
        time.sleep(0.2)
        current = client().read_flow_run(run.id)
    return current.state.name


def wait(condition, seconds=200):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_config_with_all_defaults_written_out_is_the_same():
    """Forms send all defaults, and the manifest of a catalog contains them."""
    from pipeline.config import Build

    source = {"kind": "jsonl", "path": "corpus"}
    targets = [
        {"name": "a", "dataset": {"name": "d"}},
        {"name": "b", "path": "b"},
        {"name": "c", "modules": ["m"]},
    ]
    config = Build.model_validate({"out": "catalog", "source": source, "targets": targets})
    assert Build.model_validate(json.loads(config.model_dump_json())) == config
