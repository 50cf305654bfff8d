"""Training flows: `clustermix train` from a config to a run's folder and page, and experiments."""

import json
import tomllib

import pytest

from data_catalog.errors import TrainingError, UserError
from flows.experiment_results import load_results
from flows.recipe import Recipe
from tests.flows.cli.test_main import clustermix, refused
from tests.helpers.page_text import words_of
from tests.helpers.tiny_catalog import ENCODER, write_tiny_catalog
from tests.helpers.tiny_training import tiny_config, write_config
from trainer.config import Train


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return write_tiny_catalog(tmp_path_factory.mktemp("catalog"))


def test_train_writes_a_run_and_its_page(catalog, tmp_path):
    config = write_config(tmp_path, catalog, tmp_path / "run")
    done = clustermix("train", config, "--set", "training.steps=6")
    assert done.returncode == 0, done.stderr
    assert "train dga: 6 of 6" in done.stderr
    first, *losses, report = done.stdout.splitlines()
    assert first.startswith("run: 6 steps, ")
    assert report == f"Report: {tmp_path / 'run' / 'report.html'}"
    assert [line.partition(":")[0] for line in losses] == [
        "Loss on the target spe",
        "Loss on general text",
        "Final mixture",
    ]
    assert "<html" in (tmp_path / "run" / "report.html").read_text()
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_a_finished_or_changed_run_is_noticed_without_a_trainer(catalog, tmp_path, monkeypatch):
    from flows import trainer_process

    short = {"training": {"steps": 4}, "evaluation": {"every_steps": 0}}
    runs = {}
    for mixer in ("natural", "uniform"):
        mixture = {"mixture": {"mixer": mixer}}
        runs[mixer] = write_config(tmp_path, catalog, tmp_path / "runs" / mixer)
        words = (*flat(short), *flat(mixture))
        assert clustermix("train", runs[mixer], *words).returncode == 0
    monkeypatch.delattr(trainer_process, "start_trainer")
    again = clustermix("train", runs["uniform"], *flat(short), "--set", "mixture.mixer=uniform")
    assert again.returncode == 0, again.stderr
    assert "uniform is finished. Nothing to do." in again.stderr
    assert "Compared with natural (natural), target spe: " in again.stdout
    other = clustermix("train", runs["uniform"], *flat(short), "--set", "mixture.mixer=natural")
    refused(other, "mixture.mixer was uniform and is now natural")


def flat(settings) -> list[str]:
    pairs = [
        f"{section}.{key}={value}"
        for section, keys in settings.items()
        for key, value in keys.items()
    ]
    return [word for pair in pairs for word in ("--set", pair)]


def test_invalid_settings_are_refused_before_a_process_starts(catalog, tmp_path, prefect_server):
    from prefect.exceptions import ParameterTypeError

    from flows.train import train

    with pytest.raises(UserError, match=r"^target: .*art"):
        train(tiny_config(catalog, tmp_path / "run", target="art"))
    with pytest.raises(UserError, match=r"mixture\.level: .*3"):
        train(tiny_config(catalog, tmp_path / "run", mixture={"level": 3}))
    with pytest.raises(ParameterTypeError, match="processes"):
        train(tiny_config(catalog, tmp_path / "run"), processes=0)
    assert not (tmp_path / "run").exists()


def test_a_config_survives_the_way_through_toml(tmp_path):
    from flows.trainer_process import config_as_toml

    nasty = 'a "b" \\ \n\t\x01\x7f é 中 🙂 #[x]'
    config = tiny_config(
        tmp_path / nasty,
        tmp_path / "run",
        mixture={"names": [nasty, ""], "eta": 1e-5, "preconditioned": True, "level": None},
    )
    assert Train.model_validate(tomllib.loads(config_as_toml(config))) == config


def test_a_failing_trainer_is_retried_and_its_last_output_is_reported(
    catalog, tmp_path, prefect_server, monkeypatch
):
    from flows import train as module
    from flows import trainer_process

    attempts = tmp_path / "attempts"
    dying = f"open({str(attempts)!r}, 'a').write('x'); raise SystemExit('no memory left')"
    monkeypatch.setattr(trainer_process, "trainer_command", lambda *_: ["python", "-c", dying])
    monkeypatch.setattr(module, "launch", module.launch.with_options(retry_delay_seconds=0))
    with pytest.raises(TrainingError, match=r"no memory left\n"):
        module.train(tiny_config(catalog, tmp_path / "run"))
    assert attempts.read_text() == "xxx"


def test_the_trainer_refuses_a_target_of_another_encoder(tmp_path, forked_trainer):
    catalog = write_tiny_catalog(tmp_path / "catalog")
    described = catalog / "targets" / "spe" / "target.json"
    described.write_text(
        json.dumps(json.loads(described.read_text()) | {"encoder": {**ENCODER, "sha256": "01"}})
    )
    done = clustermix("train", write_config(tmp_path, catalog, tmp_path / "run"))
    refused(done, "train dga: 0 of 28", "target spe")


def shared(config) -> dict:
    return config.model_dump(mode="json", exclude={"out"}, exclude_unset=True)


def test_an_experiment_compares_its_runs_on_one_page(
    catalog, tmp_path, prefect_server, forked_trainer
):
    from flows.experiment import experiment
    from flows.pages.run import summary_table

    config = tiny_config(
        catalog, tmp_path / "out", training={"steps": 4}, evaluation={"every_steps": 0}
    )
    recipe = Recipe(
        out=config.out,
        run=shared(config),
        variants={"natural": {"mixture": {"mixer": "natural"}}},
        seeds=(1,),
    )
    assert experiment(recipe) == str(tmp_path / "out")
    [row] = summary_table([tmp_path / "out" / "runs" / "natural-1"])
    assert (row["finished"], row["mixer"]) == (True, "natural")
    assert "natural-1" in (tmp_path / "out" / "report.html").read_text()


def test_runs_at_the_same_time_give_the_same_results(
    catalog, tmp_path, prefect_server, forked_trainer
):
    from flows.experiment import experiment

    config = tiny_config(
        catalog, tmp_path / "out", training={"steps": 8}, evaluation={"every_steps": 0}
    )
    recipe = Recipe(
        out=tmp_path / "together",
        run=shared(config),
        variants={
            "natural": {"mixture": {"mixer": "natural"}},
            "dga": {"mixture": {"mixer": "dga", "update_every_steps": 2}},
            "averaged": {"follows": "dga", "mixture": {"replay_order": "averaged"}},
        },
        jobs=2,
    )
    experiment(recipe)
    experiment(recipe.model_copy(update={"out": tmp_path / "in-turn", "jobs": 1}))
    together, in_turn = (
        load_results(tmp_path / name / "results.jsonl") for name in ("together", "in-turn")
    )
    assert [r.variant for r in together] == ["natural", "dga", "averaged"]
    assert [r.role for r in together] == ["fixed", "learned", "control"]
    assert [(r.test, r.general) for r in together] == [(r.test, r.general) for r in in_turn]
    tables = (tmp_path / "together" / "results.md").read_text()
    assert "| averaged |" in tables


def test_the_command_experiment(catalog, tmp_path, forked_trainer):
    config = write_config(tmp_path, catalog, tmp_path / "out")
    short = ("--set", "training.steps=6", "--set", "evaluation.every_steps=0")
    words = ("--variant", "uniform", "--variant", "low=optimizer.learning_rate=0.001")
    done = clustermix("experiment", config, *short, *words, "--seed", 1)
    assert done.returncode == 0, done.stderr
    header, *rows = [line.split() for line in done.stdout.splitlines()[:3]]
    assert header[0] == "run"
    assert [row[0] for row in rows] == ["uniform-1", "low-1"]
    assert f"Report: {tmp_path}/out/report.html" in done.stdout
    assert f"Page: {tmp_path}/out/experiment.html" in done.stdout
    page = words_of(tmp_path / "out" / "experiment.html")
    assert "2 runs of 2 variants, with 1 target (spe) and 1 seed (1)." in page
    again = clustermix("experiment", config, *short, *words[:2], "--seed", 1, "--json")
    answer = json.loads(again.stdout)
    assert answer["folder"] == str(tmp_path / "out")
    assert answer["page"] == str(tmp_path / "out" / "experiment.html")
    assert (tmp_path / "out" / "results.md").is_file()
    assert [(run["run"], run["mixer"], run["finished"]) for run in answer["runs"]] == [
        ("uniform-1", "uniform", True)
    ]
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("variant", "named"),
    [
        ("../up", "variant '../up'"),
        ("a=mixture.mixr=dga", "mixture.mixr"),
        ("dgaa", "variant dgaa"),
    ],
)
def test_an_invalid_variant_is_refused_at_once(catalog, tmp_path, variant, named):
    config = write_config(tmp_path, catalog, tmp_path / "out")
    refused(clustermix("experiment", config, "--variant", variant), named)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_experiment_can_be_repeated_with_more_variants(catalog, tmp_path, forked_trainer):
    from flows.local.experiment import experiment

    config = tiny_config(
        catalog, tmp_path / "out", training={"steps": 4}, evaluation={"every_steps": 0}
    )
    mixers = {name: {"mixture": {"mixer": name}} for name in ("natural", "uniform")}
    recipe = Recipe(
        out=config.out, run=shared(config), variants={"natural": mixers["natural"]}, seeds=(1,)
    )
    experiment(recipe)
    first = (tmp_path / "out" / "runs" / "natural-1" / "metrics.jsonl").read_text()
    other = {**recipe.run, "optimizer": {"learning_rate": 0.5}}
    with pytest.raises(UserError, match=r"optimizer\.learning_rate was .* and is now 0\.5"):
        experiment(recipe.model_copy(update={"run": other}))
    experiment(recipe.model_copy(update={"variants": mixers}))
    assert (
        tmp_path / "out" / "runs" / "natural-1" / "metrics.jsonl"
    ).read_text() == first  # the finished run is kept
    page = (tmp_path / "out" / "report.html").read_text()
    assert "natural-1" in page
    assert "uniform-1" in page


@pytest.mark.system
def test_prefect_settings_of_the_user_take_precedence(tmp_path):
    """A recording server receives the user's API key. The other settings are our defaults."""
    import os
    import subprocess
    import sys
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    requests = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append((self.path, self.headers["Authorization"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    script = (
        "from flows.prefect_environment import prepare; prepare()\n"
        "from prefect.client.orchestration import get_client\n"
        "from prefect.settings import get_current_settings as now\n"
        "get_client(sync_client=True).request('GET', '/hello')\n"
        "print(now().server.analytics_enabled, now().logging.level, now().home)"
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        mine = {
            "PREFECT_API_URL": f"http://127.0.0.1:{server.server_port}/api",
            "PREFECT_API_KEY": "mine",
            "PREFECT_HOME": str(tmp_path),
            "PREFECT_LOGGING_LEVEL": "INFO",
        }
        kept = {
            name: value
            for name, value in os.environ.items()
            if "PREFECT" not in name and name != "DO_NOT_TRACK"
        }
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**kept, **mine},
            capture_output=True,
            text=True,
            check=False,
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert requests == [("/api/hello", "Bearer mine")]
    assert done.stdout.split() == ["False", "INFO", str(tmp_path)]
