"""The Trainer of Hugging Face with a mixture: the batches of a plain loop, and exact resume."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments

from data_catalog import UserError
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import records, tiny_config
from tests.trainer.library.test_mixture import SETTINGS, Loop, mixture_of
from trainer.library import LoopMixture, MixtureCallback

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*pin_memory.*")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_catalog(tmp_path_factory.mktemp("catalog"))


def trainer_of(folder: Path, mixture: LoopMixture, model: PreTrainedModel, **given: Any) -> Trainer:
    """Return a Trainer with two batches of 3 sequences per step."""
    settings = {
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "max_steps": 14,
        "ignore_data_skip": True,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "save_steps": 4,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        **given,
    }
    return Trainer(
        model,
        TrainingArguments(str(folder / "checkpoints"), **settings),
        train_dataset=mixture.dataset(3),
        callbacks=[MixtureCallback(mixture)],
    )


def final_parameters(model: PreTrainedModel) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_it_trains_on_the_mixture_and_resumes(catalog: Path, tmp_path: Path) -> None:
    config = tiny_config(catalog, tmp_path / "run", **SETTINGS)
    mixture, model = mixture_of(config), Loop(config).model
    trainer_of(tmp_path, mixture, model).train()
    log = pq.read_table(tmp_path / "run" / "weights.parquet").to_pylist()
    assert [row["first_sequence"] for row in log] == [0, 24, 48, 72]
    assert log[-1]["sampling"] != log[0]["sampling"]
    losses = [record["loss"] for record in records(tmp_path / "run", "train")]
    assert len(losses) == 14
    assert losses[-1] < losses[0]

    resumed, again = mixture_of(config), Loop(config).model
    trainer = trainer_of(tmp_path, resumed, again)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-8"))
    assert torch.equal(final_parameters(again), final_parameters(model))
    after = pq.read_table(tmp_path / "run" / "weights.parquet").to_pylist()
    assert str(after) == str(log)
    assert [record["loss"] for record in records(tmp_path / "run", "train")] == losses


def test_the_loss_is_that_of_a_plain_loop(catalog: Path, tmp_path: Path) -> None:
    config = tiny_config(catalog, tmp_path / "run", **SETTINGS)
    mixture, loop = mixture_of(config), Loop(config)
    model = Loop(config).model
    batch = next(iter(torch.utils.data.DataLoader(mixture.dataset(), batch_size=6)))
    loop.run(mixture, 1, iter([batch]))
    assert model(**batch).loss.item() == pytest.approx(loop.losses[0], rel=1e-6)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"per_device_train_batch_size": 6}, "training.batch_sequences"),
        ({"max_steps": 3}, "training.steps"),
        ({"ignore_data_skip": False}, "ignore_data_skip"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    catalog: Path, tmp_path: Path, given: dict[str, Any], named: str
) -> None:
    config = tiny_config(catalog, tmp_path / "run", **SETTINGS)
    trainer = trainer_of(tmp_path, mixture_of(config), Loop(config).model, **given)
    with pytest.raises(UserError, match=named):
        trainer.train()
