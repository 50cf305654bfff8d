"""The harness on local task files, compared with likelihoods computed here."""

import json
import shutil
import socket
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from transformers import PreTrainedModel

from data_catalog import UserError
from data_catalog.format.files import open_files
from data_catalog.format.tokens import open_target
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_models import tiny_engine
from tests.helpers.tiny_questions import add_quiz
from tests.helpers.tiny_run import tiny_run_record
from tests.helpers.tiny_training import tiny_config
from trainer.config import Model
from trainer.evaluation.accuracy import accuracy, evaluate_run
from trainer.evaluation.objectives import open_objective
from trainer.evaluation.task_files import read_tasks, write_task
from trainer.evaluation.tokenizer import open_tokenizer
from trainer.model.model import build_model
from trainer.sampling.batches import Pool

LENGTH = 64  # tokens; some questions have more


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_quiz(write_tiny_catalog(tmp_path_factory.mktemp("catalog")), splits=(3, 40, 5))


@pytest.fixture(scope="module")
def model(catalog: Path) -> PreTrainedModel:
    """Return the folder of a model whose likelihoods are far from uniform."""
    model = build_model(
        Model(hidden_size=32, layers=2, heads=2),
        open_tokenizer(open_files(catalog)).get_vocab_size(),
        0,
        LENGTH,
        seed=3,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    return model


@pytest.fixture(scope="module")
def run(catalog: Path, model: PreTrainedModel) -> Path:
    """Return a folder with the files of a finished run that are read."""
    run = catalog / "run"
    shutil.copytree(catalog / "tokenizer", run / "model")
    model.save_pretrained(run / "model")
    record = tiny_run_record()
    record["config"]["catalog"] = str(catalog)
    (run / "config.json").write_text(json.dumps(record))
    return run


def test_the_harness_agrees_with_likelihoods_computed_here(
    catalog: Path, model: PreTrainedModel, run: Path, tmp_path: Path
) -> None:
    sections = {
        "training": {"sequence_tokens": LENGTH},
        "evaluation": {"sequences": 1000},
        "mixture": {"objective": "choices"},
    }
    config = tiny_config(catalog, tmp_path, **sections, target="quiz")
    files = open_files(catalog, sequence_tokens=LENGTH)
    align = Pool(open_target(files, "quiz", "align"), LENGTH, "align")
    expected = open_objective(files, config, align).evaluate(tiny_engine(model))[0]
    name = write_task(files, "quiz", "validation", tmp_path)
    result = accuracy(run / "model", read_tasks(tmp_path, [name]), device="cpu", batch_sequences=7)[
        "tasks"
    ][name]
    assert result["questions"] == expected.sequences == 40
    assert result["acc"] == pytest.approx(expected.accuracy)
    assert result["acc_stderr"] == pytest.approx(expected.accuracy_error)
    assert result["acc_bytes"] == pytest.approx(expected.accuracy_normalised)
    assert len({0.0, 1.0, result["acc"], result["acc_bytes"]}) == 4  # all different
    assert result["chance"] == pytest.approx((14 * 1 / 2 + 13 * 1 / 3 + 13 * 1 / 4) / 40, abs=0.01)


def test_accuracy_of_a_run_without_a_network(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a connection is tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    torch.rand(1)
    state = torch.get_rng_state()
    found = evaluate_run(run, ["quiz"], ["quiz_test"], run / "tasks", limit=4, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert json.loads((run / "accuracy.json").read_text()) == found
    assert found["tasks"].keys() == {"quiz_test"}
    assert found["tasks"]["quiz_test"].keys() == {
        "questions",
        "chance",
        "acc",
        "acc_stderr",
        "acc_bytes",
        "acc_bytes_stderr",
        "left_out",
    }
    assert found["tasks"]["quiz_test"]["questions"] == 4
    assert found["versions"]["lm_eval"]


def test_invalid_requests_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model"):
        evaluate_run(tmp_path, ["quiz"])
    with pytest.raises(UserError, match="targets: "):
        evaluate_run(run)
    with pytest.raises(UserError, match=r"task .*tasks_from"):
        evaluate_run(run, tasks=["colours"])
    with pytest.raises(UserError, match=r"target spe: .* 6 documents"):
        evaluate_run(run, ["spe"])
