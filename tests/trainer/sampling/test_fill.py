"""Weights are shares of tokens: leaves whose sequences are padded are drawn more often."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from data_catalog.format.files import open_files
from data_catalog.format.tokens import IGNORED, open_tokens
from flows.cli.preview import print_preview
from flows.recipe import epochs_alone
from tests.helpers.tiny_catalog import WORDS, write_tiny_catalog
from tests.helpers.tiny_training import tiny_config
from trainer.alignment.estimate import estimate_alignment, importance_weights
from trainer.alignment.measure import member_losses
from trainer.config import Train
from trainer.distributed import Team
from trainer.inputs import open_inputs
from trainer.model.engine import Engine
from trainer.model.head import Losses
from trainer.preview import preview
from trainer.sampling.fill import Fill
from trainer.sampling.plan import draw_interval, leaf_weights

LENGTH = 64
SHORT = [1, 2, 3, 4, 7]  # leaves; leaf 6 is empty
LABELS = np.array([959, 23, 23, 23, 23, 959, 0, 23])
SEQUENCES = np.array([15, 1, 1, 1, 1, 15, 0, 1])


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a catalog with leaves of 40 documents of 24 tokens, and leaves of one."""
    root = tmp_path_factory.mktemp("fill") / "catalog"
    return write_tiny_catalog(root, documents=(40, 1, 1, 1, 1, 40, 0, 1))


def config(catalog: Path, draw_by: str, mixer: str = "natural", **mixture: object) -> Train:
    data, training = {"draw_by": draw_by}, {"sequence_tokens": LENGTH}
    mixture |= {"mixer": mixer}
    return tiny_config(catalog, catalog / "out", mixture=mixture, training=training, data=data)


def weights_and_tokens(config: Train, draws: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Return the initial weights of the leaves, and their shares of the tokens of many draws."""
    inputs = open_inputs(config)
    weights = leaf_weights(inputs.mixer(config)[1].sampling, inputs.basis.matrix)
    drawn, none = inputs.drawn(weights, config), np.zeros(8, np.int64)
    plan = draw_interval(0, drawn, inputs.corpus.sequences, none, draws=draws, seed=0)
    drawn = plan.read()
    tokens = np.bincount(drawn.leaves, inputs.corpus.targets(drawn.leaves, drawn.rows), minlength=8)
    return weights, tokens / tokens.sum()


def test_the_fill_of_a_store(catalog: Path) -> None:
    store = open_tokens(open_files(catalog), "train")
    fill = Fill.of(store, LENGTH, "tokens")
    assert store.sequences(LENGTH).tolist() == SEQUENCES.tolist()
    np.testing.assert_allclose(fill.sizes(SEQUENCES), LABELS)
    weights = np.array([0.5, 0.25, 0, 0, 0, 0.25, 0, 0])
    draws = fill.draws(weights)
    assert draws.sum() == pytest.approx(1)
    # A sequence of leaf 1 has 23 tokens, one of leaves 0 and 5 has 959 / 15.
    assert draws[1] / draws[5] == pytest.approx(959 / 15 / 23)
    np.testing.assert_allclose(fill.weights(draws), weights)


def test_weights_by_sequences_are_the_draws_to_the_bit(catalog: Path) -> None:
    fill = Fill.of(open_tokens(open_files(catalog), "train"), LENGTH, "sequences")
    weights = np.array([0.1, 0.2, 0.4])  # on any scale
    assert fill.draws(weights) is weights
    assert fill.weights(weights) is weights
    matrix = np.array([weights, weights[::-1]])
    assert fill.pooled(matrix).tolist() == matrix.mean(axis=0).tolist()
    assert fill.sizes(SEQUENCES).tolist() == SEQUENCES.tolist()


@pytest.mark.parametrize("mixer", ["natural", "uniform", "unimax", "dga"])
def test_tokens_are_drawn_in_proportion_to_the_weights(catalog: Path, mixer: str) -> None:
    for level in (2, 8):
        weights, tokens = weights_and_tokens(config(catalog, "tokens", mixer, level=level))
        np.testing.assert_allclose(tokens, weights, rtol=0.01)
    weights, tokens = weights_and_tokens(config(catalog, "sequences", mixer))
    assert tokens[SHORT].sum() < 0.7 * weights[SHORT].sum()


def test_inside_a_domain_all_sequences_are_drawn_equally_often(catalog: Path) -> None:
    inputs = open_inputs(found := config(catalog, "tokens", "uniform", level=2))
    drawn = inputs.drawn(inputs.basis.matrix[0], found)
    for leaves in (slice(0, 4), slice(4, 8)):
        expected = SEQUENCES[leaves] / SEQUENCES[leaves].sum() * drawn[leaves].sum()
        np.testing.assert_allclose(drawn[leaves], expected)


def test_members_are_measured_by_their_tokens() -> None:
    """Leaves have the scores 1, 2 and 3 per token. The draws are exactly as often as expected."""
    fill = Fill(np.array([8.0, 4.0, 2.0]))
    matrix = np.array([[0.5, 0.5, 0], [0, 0.5, 0.5]])
    draws = np.mean([fill.draws(row) for row in matrix], axis=0)
    np.testing.assert_allclose(draws, [1 / 6, 3 / 6, 2 / 6])
    leaves = np.array([0, 1, 1, 1, 2, 2])
    tokens = torch.tensor([8, 4, 2])[leaves]
    scores = tokens.double() * torch.tensor([1.0, 2.0, 3.0]).double()[leaves]
    density = fill.pooled(matrix)
    np.testing.assert_allclose(density, fill.weights(draws))
    weights = importance_weights(matrix, leaves, density)
    found = estimate_alignment(scores, tokens, scores.float(), weights, Team())
    np.testing.assert_allclose(found.scores, [1.5, 2.5])
    np.testing.assert_allclose(found.losses, [1.5, 2.5])


class LossOfLeaf(PreTrainedModel):
    """A model whose loss is the number of the leaf at every token."""

    def __init__(self) -> None:
        super().__init__(PreTrainedConfig())

    def forward(
        self,
        inputs: torch.Tensor,
        labels: torch.Tensor,
        balanced: bool = False,
        owners: None = None,
    ) -> Losses:
        leaves = inputs.max(dim=1).values // WORDS
        tokens = leaves[:, None] * (labels != IGNORED).double()
        return Losses(tokens.sum(), tokens)


def test_losses_of_members_are_means_over_their_tokens(catalog: Path) -> None:
    model, found = LossOfLeaf(), config(catalog, "tokens", "dga", basis_sequences=3000)
    inputs, engine = open_inputs(found), Engine(model, model, Team(), found.training)
    losses = member_losses(engine, found, inputs, 1)
    np.testing.assert_allclose(losses, inputs.basis.matrix @ np.arange(8), rtol=0.02)


def test_the_preview_says_how_much_is_padding(
    catalog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    every_sequence_equally_often = 1 - LABELS.sum() / (SEQUENCES.sum() * LENGTH)
    natural = preview(config(catalog, "tokens", level=2))
    assert natural.padding == pytest.approx(every_sequence_equally_often, rel=0.05)
    assert natural.members[0].epochs == pytest.approx(28 * 6 / SEQUENCES.sum(), rel=0.01)
    importance = preview(config(catalog, "tokens", "importance"))  # leaf 2 alone
    assert importance.padding == pytest.approx(1 - 23 / 64)
    print_preview(importance)
    assert "64.1% of the places drawn are padding" in capsys.readouterr().out


@pytest.mark.parametrize("draw_by", ["tokens", "sequences"])
def test_recipes_and_previews_count_the_same_epochs(catalog: Path, draw_by: str) -> None:
    found = config(catalog, draw_by, "importance", kind="hard", level=2)
    assert epochs_alone(found) == pytest.approx(preview(found).members[0].epochs_alone)
