"""Inputs of alignment measurements: four leaves of random texts, and a basis of three members."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from data_catalog.format.distributions import Basis
from data_catalog.format.tokens import TokenStore
from tests.helpers.tiny_models import TOKENS, VOCABULARY
from trainer.alignment import Direction
from trainer.alignment.direction import target_direction
from trainer.config import Train
from trainer.evaluation.objectives import TextLoss
from trainer.inputs import Inputs
from trainer.model.engine import Engine
from trainer.sampling.batches import Pool
from trainer.sampling.fill import Fill

BACKENDS = ("ghost", "finite_difference")
BASIS = Basis(
    ("first", "second", "both"), np.array([[1.0, 0, 0, 0], [0, 0.5, 0.5, 0], [0.3, 0.2, 0.1, 0.4]])
)


def text_loss(engine: Engine, align: Pool) -> Callable[[], torch.Tensor]:
    """Return the backward pass of the target objective of a run on text."""
    return partial(
        TextLoss(align, settings().mixture.target_sequences, settings().seed).backward, engine, 0
    )


class Texts(TokenStore):
    """A token store of four leaves.

    Tokens are random, from one range per leaf. Some sequences are short.
    """

    def __init__(self, edition: int) -> None:
        object.__setattr__(self, "edition", edition)

    def sequences(self, length: int) -> np.ndarray:
        return np.array([9, 5, 7, 6])

    def targets(self, leaves: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
        return length - (leaves + rows) % 5

    def read(
        self, leaves: np.ndarray, rows: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        inputs, labels = (
            np.zeros((len(leaves), length), np.int64),
            np.full((len(leaves), length), -100),
        )
        for i, (leaf, row) in enumerate(zip(leaves, rows, strict=True)):
            kept = self.targets(leaf, row, length)
            tokens = (
                np.random.Generator(np.random.Philox(key=[4 * self.edition + leaf, row])).integers(
                    10 * leaf, 10 * leaf + 30, length + 1
                )
                % VOCABULARY
            )
            inputs[i, :kept], labels[i, :kept] = tokens[:kept], tokens[1 : kept + 1]
        return inputs, labels


def settings(
    backend: str = "exact", scores: str = "raw", sequences: int = 6, **training: Any
) -> Train:
    mixture = {
        "backend": backend,
        "scores": scores,
        "basis_sequences": sequences,
        "target_sequences": 5,
    }
    sizes = {"sequence_tokens": TOKENS, "batch_sequences": 4, "micro_batch_sequences": 2}
    return Train.model_validate(
        {
            "catalog": "c",
            "out": "o",
            "target": "t",
            "mixture": mixture,
            "training": {**sizes, **training},
        }
    )


def texts() -> Inputs:
    """Return the parts of a run's inputs that are process_measurements on."""
    corpus, align = (Pool(Texts(edition), TOKENS, "texts") for edition in range(2))
    parts = object.__new__(Inputs)  # without the other fields
    vars(parts).update(corpus=corpus, align=align, basis=BASIS, fill=Fill(None))
    return parts


def toward_target(engine: Engine) -> Direction:
    return target_direction(engine, text_loss(engine, texts().align))


def assert_near(found: Any, expected: Any, tolerance: float, error: Any = 0.0) -> None:
    """Check that a vector is within `tolerance` of the length of the expected one.

    The length of `error` is added.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    allowed = tolerance * np.linalg.norm(expected) + np.linalg.norm(np.asarray(error))
    assert np.linalg.norm(found - expected) <= allowed


def random_direction(model: nn.Module) -> Direction:
    """Return a direction with random elements, the same for every model of a shape."""
    generator = torch.Generator().manual_seed(3)
    return Direction(
        {name: torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()},
        0.0,
        1.0,
    )
