"""From weights to sequences: which sequence of which leaf every global sequence number is.

Weights change only where a stage begins. Inside a stage the number of sequences of each leaf is fixed by systematic
sampling, within the bounds of the run, and their order by a keyed permutation; a leaf's own sequences come in a new keyed
order each epoch. So the token stream is a function of (seed, weight log), and its state is a stage number and one counter a leaf.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from trainer.sampling.bounds import DrawBounds
from trainer.sampling.permutation import derive, generator, permutation_key, permute


@dataclass(frozen=True)
class IntervalPlan:
    """Every draw of one stage, in the order of its global sequence numbers."""

    stage: int
    leaves: Int[np.ndarray, " draws"]
    rows: Int[np.ndarray, " draws"]  # sequence inside the leaf
    epochs: Int[np.ndarray, " draws"]  # how often the leaf had been used up before
    shares: Float[
        np.ndarray, " leaves"
    ]  # that the leaves were drawn with: the weights, or what the bounds left of them; sum to 1
    moved: float  # share of the draws that the bounds gave to other leaves than the weights did

    def batch(self, step: int, batch_sequences: int, rank: int, world: int) -> slice:
        """This rank's part of a global batch, as a slice of the arrays; `step` counts from the stage's beginning.

        The parts of all ranks, put together in order, are the batch: the same stream for every world size.
        """
        start = step * batch_sequences
        return slice(
            start + rank * batch_sequences // world, start + (rank + 1) * batch_sequences // world
        )

    def counts(self, draws: int, leaves: int) -> Int[np.ndarray, " leaves"]:
        """How often each leaf comes up in the first `draws` draws."""
        return np.bincount(self.leaves[:draws], minlength=leaves)


def leaf_weights(
    sampling: Float[np.ndarray, " basis"], matrix: Float[np.ndarray, "basis leaves"]
) -> Float[np.ndarray, " leaves"]:
    """`sum_i sampling_i matrix_i`, added up in a fixed order: a matrix product may differ in the last bit between machines."""
    leaves = np.zeros(matrix.shape[1])
    for weight, row in zip(sampling.tolist(), matrix, strict=True):
        if weight > 0:
            leaves += weight * row
    return leaves


def interval_counts(
    weights: Float[np.ndarray, " leaves"], draws: int, seed: int, stage: int
) -> Int[np.ndarray, " leaves"]:
    """How often each leaf is drawn in a stage: systematic sampling with one random offset u.

    With cumulated weights c, `counts_i = floor(c_i draws + u) - floor(c_{i-1} draws + u)`: unbiased, within one of
    `weights_i * draws`, and they sum to `draws` exactly. A leaf of weight zero is never drawn.
    """
    offset = (
        float(generator(seed, "stage", stage).integers(2**20)) / 2**20
    )  # coarse enough that draws + offset is exact
    cumulated = np.cumsum(weights)
    edges = np.floor(cumulated / cumulated[-1] * draws + offset).astype(np.int64)
    return np.diff(edges, prepend=0)


def draw_interval(
    stage: int,
    weights: Float[np.ndarray, " leaves"],
    sequences: Int[np.ndarray, " leaves"],
    used: Int[np.ndarray, " leaves"],
    *,
    draws: int,
    seed: int,
    bounds: DrawBounds | None = None,
) -> IntervalPlan:
    """The plan of one stage.

    Args:
        weights: share of each leaf; zero where it has no sequences.
        sequences: how many each leaf has.
        used: how many draws of each leaf all earlier stages made.
        draws: sequences of the stage: steps times global batch; where there are bounds, of the last stage only those of its own steps.
        bounds: of the whole run.

    Raises:
        UserError: the bounds leave too little for the stage.
    """
    left = bounds.left(used) if bounds else None
    shares = left.project(weights, draws) if left else weights
    counts = interval_counts(shares, draws, seed, stage)
    if left:
        counts = left.settle(counts, shares)
    moved = (
        0.0
        if shares is weights
        else float(np.abs(shares / shares.sum() - weights / weights.sum()).sum()) / 2
    )
    if counts[sequences == 0].any():
        raise ValueError("draw_stage: weight on a leaf without sequences")
    order = permute(
        np.arange(draws, dtype=np.uint64), np.uint64(draws), permutation_key(seed, "order", stage)
    )
    leaves = np.repeat(np.arange(len(counts)), counts)[order.astype(np.int64)]
    uses = used[leaves] + _occurrence(leaves)
    epochs, places = np.divmod(uses, sequences[leaves])
    keys = derive(
        derive(permutation_key(seed, "leaf"), leaves.astype(np.uint64)), epochs.astype(np.uint64)
    )
    rows = permute(places.astype(np.uint64), sequences[leaves].astype(np.uint64), keys)
    return IntervalPlan(stage, leaves, rows.astype(np.int64), epochs, shares / shares.sum(), moved)


def _occurrence(leaves: Int[np.ndarray, " draws"]) -> Int[np.ndarray, " draws"]:
    """For each position, how many earlier positions hold the same leaf."""
    order = np.argsort(leaves, kind="stable")
    ordered = leaves[order]
    result = np.empty_like(leaves)
    result[order] = np.arange(len(leaves)) - np.searchsorted(ordered, ordered, side="left")
    return result
