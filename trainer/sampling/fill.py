"""Weights are shares of tokens. Draws are of sequences, of which some are padded.

The last sequence of a leaf is filled only in part, and is drawn like any other. A leaf with few
tokens in its sequences is therefore drawn more often, so that a weight is the leaf's share of the
tokens that the model is trained on. Only this module turns one into the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from data_catalog.format.tokens import TokenStore

_Shares = Float[np.ndarray, " leaves"]


@dataclass(frozen=True)
class Fill:
    """The number of tokens in the sequences of each leaf. A token is a label: what is predicted."""

    tokens: Float[np.ndarray, " leaves"] | None
    """Mean number of tokens per sequence, and 1 for leaves without sequences. None: weights are
    shares of the draws, as if all sequences had the same number."""

    @classmethod
    def of(cls, store: TokenStore, length: int, draw_by: Literal["tokens", "sequences"]) -> "Fill":
        """Return the fill of the sequences of a store, as `data.draw_by` says.

        Args:
            store: the tokens.
            length: labels per sequence.
            draw_by: what weights are shares of.
        """
        if draw_by == "sequences":
            return cls(None)
        sequences = store.sequences(length)
        return cls(np.where(sequences > 0, store.labels() / np.maximum(sequences, 1), 1.0))

    def sizes(self, sequences: Int[np.ndarray, " leaves"]) -> _Shares:
        """Return the size of leaves, in what weights are shares of: tokens, or sequences."""
        return sequences * (1.0 if self.tokens is None else self.tokens)

    def draws(self, weights: _Shares) -> _Shares:
        """Return the shares of the draws that give the leaves these weights."""
        if self.tokens is None:
            return weights
        shares = weights / self.tokens
        return shares / shares.sum()

    def weights(self, draws: _Shares) -> _Shares:
        """Return the weights of leaves with these shares of the draws."""
        if self.tokens is None:
            return draws
        shares = draws * self.tokens
        return shares / shares.sum()

    def pooled(
        self, matrix: Float[np.ndarray, "basis leaves"], counts: Sequence[int] | None = None
    ) -> _Shares:
        """Return the weights of leaves if every row is drawn from `counts` times.

        Args:
            matrix: weights of the leaves in each row, or zero for a row without draws.
            counts: number of draws from each row. None: equally many.
        """
        if self.tokens is None:
            return matrix.mean(axis=0) if counts is None else np.average(matrix, 0, counts)
        shares = np.zeros(matrix.shape[1])
        for row, count in zip(matrix, counts or [1] * len(matrix), strict=True):
            if count:
                shares += count * row / (row / self.tokens).sum()  # divided by draws per token
        return shares / shares.sum()
