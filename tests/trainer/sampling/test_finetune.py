"""The second phase: its draws and resuming."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data_catalog.format.files import open_files
from data_catalog.format.tokens import open_target, open_tokens
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_models import tiny_engine
from tests.helpers.tiny_training import tiny_config
from trainer.config import Train
from trainer.distributed import Team
from trainer.evaluation.evaluate import evaluation_set, held_out_losses
from trainer.evaluation.tokenizer import byte_lengths, open_tokenizer
from trainer.model.model import build_model
from trainer.model.optimizer import build_optimizer, learning_rate, set_learning_rate
from trainer.sampling.batches import Pool
from trainer.sampling.finetune import finetune_batches

TUNING = {
    "steps": 20,
    "batch_sequences": 5,
    "learning_rate": 0.01,
    "warmup_steps": 2,
    "schedule": "constant",
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Train:
    folder = tmp_path_factory.mktemp("finetune")
    return tiny_config(write_tiny_catalog(folder / "catalog"), folder / "run", finetune=TUNING)


@pytest.fixture(scope="module")
def align(config: Train) -> Pool:
    return Pool(open_target(open_files(config.catalog), "spe", "align"), 16, "align")


def tune(
    config: Train,
    align: Pool,
    steps: range,
    weights: dict[str, Tensor],
    moments: dict[str, Any] | None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Take these steps of the phase, and return the tensors of the model and the optimizer."""
    model = build_model(config.model, 64, 0, 16, seed=0)
    model.load_state_dict(weights)
    engine, optimizer = tiny_engine(model, micro=3), build_optimizer(model, config.optimizer)
    if moments:
        optimizer.load_state_dict(moments)
    for step, batch in zip(
        steps, finetune_batches(config, align, steps.start, Team()), strict=False
    ):
        set_learning_rate(optimizer, learning_rate(config.finetune, step, config.finetune.steps))
        engine.clear()
        engine.backward(batch)
        optimizer.step()
    return model.state_dict(), optimizer.state_dict()


def losses(config: Train, weights: dict[str, Tensor]) -> list[float]:
    """Return the losses on the target's validation split and on the corpus."""
    held = Pool(open_target(open_files(config.catalog), "spe", "validation"), 16, "validation")
    general = Pool(open_tokens(open_files(config.catalog), "heldout"), 16, "heldout")
    sets = [
        evaluation_set(name, pool, 100, 0)
        for name, pool in (("target", held), ("general", general))
    ]
    model = build_model(config.model, 64, 0, 16, seed=0)
    model.load_state_dict(weights)
    return [
        one.loss
        for one in held_out_losses(
            tiny_engine(model), sets, byte_lengths(open_tokenizer(open_files(config.catalog)))
        )
    ]


def test_every_sequence_is_drawn_once_per_epoch(config: Train, align: Pool) -> None:
    batches = list(finetune_batches(config, align, 0, Team()))
    assert [len(batch.inputs) for batch in batches] == [5] * 20
    drawn = torch.cat([batch.inputs for batch in batches]).tolist()
    epochs = [drawn[first : first + align.total] for first in range(0, 96, align.total)]
    assert align.total == 16
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({str(epoch) for epoch in epochs}) == 6
    rest = [batch.digest() for batch in finetune_batches(config, align, 13, Team())]
    assert rest == [batch.digest() for batch in batches[13:]]


def test_the_processes_share_a_batch(config: Train, align: Pool) -> None:
    whole = next(finetune_batches(config, align, 3, Team()))
    parts = [next(finetune_batches(config, align, 3, Team(rank, 3))) for rank in range(3)]
    assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)
    assert {part.total for part in parts} == {whole.total}


def test_the_phase_learns_the_target(config: Train, align: Pool) -> None:
    start = build_model(config.model, 64, 0, 16, seed=0).state_dict()
    before = losses(config, start)
    after = losses(config, tune(config, align, range(20), start, None)[0])
    assert before[0] - after[0] > 1
    assert (
        before[1] - after[1] < before[0] - after[0] - 1
    )  # what was learned is the target's language


def test_the_phase_resumes_where_it_stopped(config: Train, align: Pool) -> None:
    start = build_model(config.model, 64, 0, 16, seed=0).state_dict()
    whole, _ = tune(config, align, range(20), start, None)
    rest, _ = tune(config, align, range(7, 20), *tune(config, align, range(7), start, None))
    for name, tensor in rest.items():
        np.testing.assert_array_equal(tensor.numpy(), whole[name].numpy())
