"""The mixture in a plain loop: the weights, draws and scores of the trainer, and exact resume."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from data_catalog import UserError
from data_catalog.format.tables import WEIGHTS
from flows.pages.run.page import write_report
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import records, tiny_config
from trainer.config import Train
from trainer.inputs import open_inputs
from trainer.library import LoopMixture, open_mixture
from trainer.loop import train
from trainer.model.model import build_model
from trainer.model.optimizer import build_optimizer, learning_rate_at, set_learning_rate

LEARNED = {"scores": "target", "update_every_steps": 4, "measure_steps": 2, "prior": "target"}
SETTINGS = {
    "mixture": LEARNED,
    "training": {"steps": 14, "separate_documents": False},
    "evaluation": {"every_steps": 0},
}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_catalog(tmp_path_factory.mktemp("catalog"))


def mixture_of(config: Train, **changed: Any) -> LoopMixture:
    settings = config.model_dump(exclude={"model", "finetune", "checkpoint"}, exclude_unset=True)
    for name in ("compile", "checkpoint_activations", "parallel"):
        settings["training"].pop(name, None)
    return open_mixture(**{**settings, **changed})


class Loop:
    """A plain loop with the model, optimizer and learning rate of a config."""

    def __init__(self, config: Train) -> None:
        files = open_inputs(config).files
        vocabulary = files.manifest.tokenizer.vocabulary
        tokens = config.training.sequence_tokens
        self.config = config
        self.model = build_model(config.model, vocabulary, files.end_of_text, tokens, config.seed)
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.losses: list[float] = []

    def run(self, mixture: LoopMixture, steps: int, loader: Iterator[Any]) -> None:
        for _ in range(steps):
            batch = next(loader)
            set_learning_rate(self.optimizer, learning_rate_at(self.config, mixture.step))
            logits = self.model(input_ids=batch["input_ids"]).logits
            loss = functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.losses.append(loss.item())
            mixture.after_step(self.model, loss.item())


def loader_of(mixture: LoopMixture, workers: int = 0) -> Iterator[Any]:
    dataset = mixture.dataset(batch_size=6)
    return iter(DataLoader(dataset, batch_size=6, num_workers=workers))


def weights(out: Path) -> list[dict[str, Any]]:
    return pq.read_table(out / "weights.parquet").to_pylist()


@pytest.fixture(scope="module")
def finished(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Loop]:
    """Return the folder of a run in a plain loop, and the loop."""
    config = tiny_config(catalog, tmp_path_factory.mktemp("loop") / "run", **SETTINGS)
    mixture, loop = mixture_of(config), Loop(config)
    loop.run(mixture, 14, loader_of(mixture))
    mixture.finish(loop.model)
    return config.folder, loop


def test_a_loop_has_the_draws_the_scores_and_the_weights_of_the_trainer(
    finished: tuple[Path, Loop], catalog: Path, tmp_path: Path
) -> None:
    config = tiny_config(catalog, tmp_path / "trainer", **SETTINGS)
    assert train(config)
    out, loop = finished
    own, expected = weights(out), weights(config.folder)
    assert [row["first_sequence"] for row in own] == [0, 24, 48, 72]
    for row, wanted in zip(own, expected, strict=True):
        assert row["first_sequence"] == wanted["first_sequence"]
        if wanted["scores"] is not None:
            np.testing.assert_allclose(row["scores"], wanted["scores"], rtol=1e-4)
        np.testing.assert_allclose(row["sampling"], wanted["sampling"], rtol=1e-5)
    losses = [record["loss"] for record in records(config.folder, "train")]
    np.testing.assert_allclose(loop.losses, losses, rtol=1e-5)
    usage = [pq.read_table(folder / "usage.parquet") for folder in (out, config.folder)]
    assert usage[0].equals(usage[1])
    [final], [wanted] = records(out, "final"), records(config.folder, "final")
    assert (final["steps"], final["tokens"]) == (wanted["steps"], wanted["tokens"])
    updates, wanted = records(out, "update"), records(config.folder, "update")
    assert [u["step"] for u in updates] == [u["step"] for u in wanted] == [4, 8, 12]


def test_the_run_folder_has_a_report(finished: tuple[Path, Loop], tmp_path: Path) -> None:
    out, _ = finished
    assert pq.read_schema(out / "weights.parquet").equals(WEIGHTS)
    write_report([out], tmp_path / "report.html")
    assert "spe" in (tmp_path / "report.html").read_text()


def test_a_finished_run_is_not_overwritten(finished: tuple[Path, Loop], catalog: Path) -> None:
    with pytest.raises(UserError, match="finished"):
        mixture_of(tiny_config(catalog, finished[0], **SETTINGS))


@pytest.mark.parametrize("stopped", [5, 6, 7, 8])  # between, and at the end of, an interval of 4
def test_a_run_resumes_bit_for_bit(
    finished: tuple[Path, Loop], catalog: Path, tmp_path: Path, stopped: int
) -> None:
    out, whole = finished
    config = tiny_config(catalog, tmp_path / "run", **SETTINGS)
    mixture, loop = mixture_of(config), Loop(config)
    loop.run(mixture, stopped, loader_of(mixture))
    torch.save(mixture.state_dict(), tmp_path / "mixture.pt")
    saved = copy.deepcopy((loop.model.state_dict(), loop.optimizer.state_dict()))
    losses = list(loop.losses)
    loop.run(mixture, 3, loader_of(mixture))  # what is lost

    mixture, loop = mixture_of(config), Loop(config)
    loader = loader_of(mixture)  # also a dataset that was made before
    mixture.load_state_dict(torch.load(tmp_path / "mixture.pt", weights_only=True))
    loop.model.load_state_dict(saved[0])
    loop.optimizer.load_state_dict(saved[1])
    loop.losses = losses
    loop.run(mixture, 14 - stopped, loader)
    assert loop.losses == whole.losses
    assert str(weights(config.folder)) == str(weights(out))  # with NaN
    steps = [record["step"] for record in records(config.folder, "train")]
    assert steps == list(range(1, 15))


# torch may report workers that were still reading ahead when their loader is dropped.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_workers_of_a_loader_give_the_same_batches(
    finished: tuple[Path, Loop], catalog: Path, tmp_path: Path
) -> None:
    config = tiny_config(catalog, tmp_path / "run", **SETTINGS)
    mixture, loop = mixture_of(config), Loop(config)
    loop.run(mixture, 14, loader_of(mixture, workers=2))
    assert loop.losses == finished[1].losses


def test_processes_share_every_step(catalog: Path, tmp_path: Path) -> None:
    mixture = mixture_of(tiny_config(catalog, tmp_path / "run", **SETTINGS))
    whole = next(iter(DataLoader(mixture.dataset(), batch_size=6)))
    parts = [
        next(iter(DataLoader(mixture.dataset(3, rank=rank, world=2), batch_size=3)))
        for rank in (0, 1)
    ]
    assert torch.equal(torch.cat([part["input_ids"] for part in parts]), whole["input_ids"])


def test_reading_beyond_the_chosen_weights_is_refused(catalog: Path, tmp_path: Path) -> None:
    mixture = mixture_of(tiny_config(catalog, tmp_path / "run", **SETTINGS))
    items = iter(mixture.dataset())
    for _ in range(4 * 6):
        next(items)
    with pytest.raises(UserError, match="step 4"):
        next(items)


def test_a_model_that_is_not_of_transformers_is_measured(catalog: Path, tmp_path: Path) -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(64, 16), nn.Linear(16, 64)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.table(tokens).relu())

    mixture = mixture_of(tiny_config(catalog, tmp_path / "run", **SETTINGS))
    model = Small()
    compiled = torch.compile(model, backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in DataLoader(mixture.dataset(), batch_size=6):
        functional.cross_entropy(model(batch["input_ids"]).mT, batch["labels"]).backward()
        optimizer.step()
        optimizer.zero_grad()
        mixture.after_step(compiled)
    scores = [row["scores"] for row in weights(tmp_path / "run")]
    assert len(scores) == 4
    assert scores[0] is None
    assert all(np.isfinite(row[1:]).all() for row in scores[1:])
    assert len({row[1] for row in scores[1:]}) == 3


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"model": {"preset": "tiny"}}, "model"),
        ({"training": {"steps": 8, "compile": True}}, "training.compile"),
        ({"mixture": {**LEARNED, "preconditioned": True}}, "mixture.preconditioned"),
        ({"mixture": {"update_every_steps": 1}}, "mixture.update_every_steps"),
        ({"out": "s3://bucket/run"}, "out"),
        ({"target": "speck"}, "speck"),
    ],
)
def test_what_a_loop_cannot_do_is_refused(
    catalog: Path, tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    with pytest.raises(UserError, match=named):
        mixture_of(tiny_config(catalog, tmp_path / "run", **SETTINGS), **changed)


def test_a_state_of_other_settings_is_refused(catalog: Path, tmp_path: Path) -> None:
    config = tiny_config(catalog, tmp_path / "run", **SETTINGS)
    state = mixture_of(config).state_dict()
    with pytest.raises(UserError, match=r"seed was 0 and is now 1"):
        mixture_of(config, seed=1).load_state_dict(state)
