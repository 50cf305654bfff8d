"""Signals during commands that train and evaluate: train, experiment and eval."""

import json
import shutil
import signal

import pytest

from data_catalog.format.files import open_files
from tests.helpers.faults import Lost, Wrong
from tests.helpers.interrupted import (
    COMMAND,
    CTRL_C,
    GROUP_INT,
    GROUP_TERM,
    LIMIT_SECONDS,
    SIGNALS,
    Running,
    exists,
    imports,
    server_starts,
    stepped,
    unfinished,
)
from tests.helpers.processes import train_in_processes
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_questions import add_quiz
from tests.helpers.tiny_run import tiny_run_record
from tests.helpers.tiny_training import records, write_config
from trainer.config import Model
from trainer.evaluation.accuracy import evaluate_run
from trainer.evaluation.tokenizer import open_tokenizer
from trainer.model.model import build_model

pytestmark = SIGNALS
STEPS = 120
SETTINGS = (f"training.steps={STEPS}", "evaluation.every_steps=0", "checkpoint.every_steps=30")
OVERRIDES = [word for setting in SETTINGS for word in ("--set", setting)]
MODEL = "model/model.safetensors"
EXPERIMENT = (*COMMAND, "experiment", "experiment.toml", "--variant", "natural", "--variant", "dga")


@pytest.fixture(scope="module")
def prefect_home(tmp_path_factory):
    return tmp_path_factory.mktemp("prefect")


def interrupt(arguments, folder, prefect_home, way, point):
    """Run Python until a point, and interrupt it there."""
    running = Running([*map(str, arguments)], folder, way.terminal, prefect_home)
    running.wait_for(point)
    running.interrupt(way)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A catalog, and a run on it that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    catalog = write_tiny_catalog(folder / "catalog")
    train_in_processes(write_config(folder, catalog, folder / "run"), *OVERRIDES)
    return folder


def trainer_starts(running):
    return running.has_child("trainer")


TRAININGS = {
    "imports": lambda _: imports(0.5),
    "prefect-server": lambda _: server_starts,
    "prefect-step": stepped,
    "trainer": lambda _: trainer_starts,
    "step": stepped,
    "checkpoint": lambda run: lambda _: any(run.glob("checkpoints/.*.tmp")),
    "model": lambda run: exists(run / "usage.parquet"),
}


@pytest.mark.parametrize(
    ("way", "point", "processes"),
    [
        (CTRL_C, "imports", 1),
        (GROUP_INT, "prefect-server", 1),
        (GROUP_TERM, "trainer", 1),
        (CTRL_C, "prefect-step", 1),
        (CTRL_C, "step", 1),
        (GROUP_INT, "step", 2),
        (GROUP_TERM, "checkpoint", 1),
        (GROUP_INT, "model", 1),
    ],
    ids=str,
)
def test_train(whole, tmp_path, prefect_home, way, point, processes):
    run = tmp_path / "run"
    config = write_config(tmp_path, whole / "catalog", run)
    words = (*COMMAND, "train", config, *OVERRIDES, "--processes", processes)
    words += ("--prefect",) if point.startswith("prefect-") else ()
    interrupt(words, tmp_path, prefect_home, way, TRAININGS[point](run))
    if point in {"prefect-step", "step", "checkpoint"}:
        last = records(run, "train")[-1]["step"]
        if not (run / "checkpoints" / f"{last:010d}").is_dir():
            raise Lost(f"step {last} is not in a checkpoint")
        assert last < STEPS
    assert not unfinished(run)
    # Before a step there is nothing to resume. Sums of two processes differ in the last bit.
    if point in {"prefect-step", "step", "checkpoint", "model"} and processes == 1:
        train_in_processes(config, *OVERRIDES)
        if (run / MODEL).read_bytes() != (whole / "run" / MODEL).read_bytes():
            raise Wrong("another model than without the interruption")


@pytest.mark.parametrize(
    ("way", "point"), [(GROUP_INT, "prefect-server"), (GROUP_TERM, "second")], ids=str
)
def test_experiment(whole, tmp_path, prefect_home, way, point):
    runs = tmp_path / "experiment" / "runs"
    write_config(tmp_path, whole / "catalog", tmp_path / "experiment")
    points = {
        "prefect-server": server_starts,
        "second": exists(runs / "natural" / MODEL),
    }
    words = (*EXPERIMENT, "--prefect") if point == "prefect-server" else EXPERIMENT
    interrupt(words, tmp_path, prefect_home, way, points[point])
    assert not unfinished(tmp_path)
    if point != "second":
        return
    done = (runs / "natural" / MODEL).stat().st_mtime_ns
    again = Running(EXPERIMENT, tmp_path, way.terminal, prefect_home)
    assert again.finish() == 0, again.output
    if (runs / "natural" / MODEL).stat().st_mtime_ns != done:
        raise Lost("the finished run was trained again")
    assert (runs / "dga" / MODEL).is_file()
    assert (tmp_path / "experiment" / "report.html").is_file()


SCRIPT = """
from pathlib import Path
from flows.experiment import experiment
from flows.recipe import open_recipe
experiment(open_recipe(Path("experiment.toml"), ["natural"]))
"""


def test_experiment_of_a_script(whole, tmp_path, prefect_home):
    """A Python program ends with Python's own traceback, but its flow ends it as soon."""
    write_config(tmp_path, whole / "catalog", tmp_path / "experiment")
    running = Running(("-c", SCRIPT), tmp_path, False, prefect_home)
    running.wait_for(stepped(tmp_path / "experiment" / "runs" / "natural"))
    running.send(GROUP_INT)
    assert running.finish(LIMIT_SECONDS) == -signal.SIGINT, running.output
    assert not running.left()
    assert list((tmp_path / "experiment" / "runs" / "natural" / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A run with the model that `eval` reads, and what `eval` says about it."""
    folder = tmp_path_factory.mktemp("evaluated")
    catalog = add_quiz(write_tiny_catalog(folder / "catalog"), splits=(3, 3, 900))
    vocabulary = open_tokenizer(open_files(catalog)).get_vocab_size()
    model = build_model(Model(hidden_size=32, layers=2, heads=2), vocabulary, 0, 64, seed=3)
    run = folder / "run"
    shutil.copytree(catalog / "tokenizer", run / "model")
    model.save_pretrained(run / "model")
    record = tiny_run_record()
    record["config"]["catalog"] = str(catalog)
    (run / "config.json").write_text(json.dumps(record))
    expected = evaluate_run(run, ["quiz"], limit=50, device="cpu")
    shutil.rmtree(run / "tasks")
    (run / "accuracy.json").unlink()
    return run, expected


@pytest.mark.parametrize(
    ("way", "point"),
    [
        (CTRL_C, "imports"),
        (GROUP_TERM, "torch"),
        (GROUP_INT, "tasks"),
        (CTRL_C, "requests"),
        (GROUP_TERM, "requests"),
    ],
    ids=str,
)
def test_eval(finished_run, tmp_path, prefect_home, way, point):
    run = shutil.copytree(finished_run[0], tmp_path / "run")
    points = {
        "imports": imports(0.5),
        "torch": lambda running: running.has_mapped("libtorch_cpu"),
        "tasks": exists(run / "tasks"),
        "requests": lambda running: "loglikelihood requests" in running.output,
    }
    words = (*COMMAND, "eval", run, "--target", "quiz")
    interrupt(words, tmp_path, prefect_home, way, points[point])
    assert not unfinished(run)
    assert not (run / "accuracy.json").exists()
    if point == "requests":
        found = evaluate_run(run, ["quiz"], limit=50, device="cpu")
        if found["tasks"] != finished_run[1]["tasks"]:
            raise Wrong("another accuracy than without the interruption")
