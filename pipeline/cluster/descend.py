"""Search the tree with many vectors at once: one product per cell and level."""

import threading
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from pipeline.cluster.products import (
    EXACT_DTYPE,
    fast_dtype,
    padded_rows,
    product_device,
    rounding_slack,
)
from pipeline.cluster.tree import Tree
from pipeline.threads import pieces

_EXACT_PRODUCTS = 256  # exact products at once, so that both operands stay in the cache


@dataclass
class FollowedCells:
    """Pairs of vectors and the cells of one level that they follow."""

    rows: Int64[np.ndarray, " pairs"]
    cells: Int64[np.ndarray, " pairs"]


class Descent:
    """A tree prepared for products. Several threads may call it."""

    def __init__(self, tree: Tree, beam: int) -> None:
        self.granularities, self.margins, self.beam = tree.levels.granularities, tree.margins, beam
        self.where, self.type = product_device(), fast_dtype()
        self.tables = {
            k: torch.from_numpy(level).to(self.where, self.type)
            for k, level in tree.centroids.items()
        }
        self.leaves = tree.centroids[tree.levels.leaves]
        self.empty: dict[int, Bool[Tensor, " cells"]] = {
            k: torch.from_numpy(~filled).to(self.where) for k, filled in tree.filled.items()
        }
        self.any_empty = {k: bool(empty.any()) for k, empty in self.empty.items()}
        self.local = threading.local()

    def __call__(
        self, x: Float[np.ndarray, "n dim"]
    ) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
        """Return the leaf and cosine of each vector.

        All bounds are scaled by the vectors' lengths, which is cheaper than scaling the vectors.
        """
        n, dim = x.shape
        exact = self._room("exact", padded_rows(n), dim, EXACT_DTYPE)
        exact[:n] = torch.from_numpy(np.array(x))
        truth = exact[:n].cpu().numpy()
        lengths = np.sqrt(np.vecdot(truth, truth)).clip(min=np.finfo(np.float32).tiny)
        scale = torch.from_numpy(lengths).to(self.where)
        rows = exact
        if self.type != EXACT_DTYPE:
            rows = self._room("rows", len(exact), dim, self.type)
            rows[:n] = exact[:n]
        first, *deeper = self.granularities
        cosines = torch.mm(
            self.tables[first], rows.T, out=self._room("first", first, len(rows), self.type)
        )[:, :n]
        if self.any_empty[first]:
            cosines[self.empty[first]] = -torch.inf
        cells, owners = _where(cosines >= self._bound(cosines.amax(dim=0), scale, first))
        pairs = FollowedCells(owners, cells)
        if deeper:
            pairs = self._capped(pairs, cosines, (cells, owners), n)
        for above, k in pairwise(self.granularities):
            b = k // above
            followers = torch.from_numpy(pairs.rows).to(self.where)
            cosines = self._children(rows, pairs, followers, k, b)
            highest = cosines.amax(dim=1)
            bound = self._bound(_largest(highest, followers, n), scale, k)[followers]
            likely = torch.nonzero(highest >= bound)[:, 0]
            near = cosines.index_select(0, likely)
            some, child = _where(near >= bound.index_select(0, likely)[:, None])
            pair = likely.cpu().numpy()[some]
            pairs = FollowedCells(pairs.rows[pair], pairs.cells[pair] * b + child)
            if k != self.granularities[-1]:
                pairs = self._capped(pairs, near, (some, child), n)
        return self._nearest(truth, lengths, pairs)

    def _room(self, name: str, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """Return this thread's array of that name, which is kept from call to call.

        New pages of memory would cost as much as the products.
        """
        held: Tensor | None = getattr(self.local, name, None)
        if held is None or len(held) < rows * columns:
            held = torch.zeros(rows * columns * 5 // 4, dtype=dtype, device=self.where)
            setattr(self.local, name, held)
        return held[: rows * columns].view(rows, columns)

    def _bound(
        self, best: Float[Tensor, " n"], lengths: Float32[Tensor, " n"], k: int
    ) -> Float[Tensor, " n"]:
        """Return the smallest product of a cell to be followed.

        At the leaves, it is the smallest product that may be the largest one but for rounding.
        """
        if k == self.granularities[-1]:
            return (
                best.float() - rounding_slack(best, lengths, self.tables[k].shape[1], self.type)
            ).to(best.dtype)
        if self.margins is None:
            return torch.full_like(best, torch.finfo(best.dtype).min)
        return (best.float() - self.margins[self.granularities.index(k)] * lengths).to(best.dtype)

    def _capped(
        self,
        pairs: FollowedCells,
        cosines: Float[Tensor, "a b"],
        places: tuple[np.ndarray, np.ndarray],
        n: int,
    ) -> FollowedCells:
        """Return at most `beam` pairs per vector, its best ones, sorted by cell.

        The cosines of the pairs are at `places`, and are compared in bfloat16.
        """
        rows, cells = pairs.rows, pairs.cells
        many = np.bincount(rows, minlength=n) > self.beam
        crowded = many[rows]
        if crowded.any():
            taken = [torch.from_numpy(place[crowded]).to(self.where) for place in places]
            bits = (
                cosines[taken[0], taken[1]]
                .to(torch.bfloat16)
                .view(torch.int16)
                .cpu()
                .numpy()
                .astype(np.int64)
            )
            # A large cosine has a small number, so that one sort orders rows, cosines and cells.
            falling = np.where(bits < 0, 2**15 + (bits & 0x7FFF), 2**15 - 1 - bits)
            keys = np.sort((rows[crowded] << 47) | (falling << 31) | cells[crowded])
            starts = np.flatnonzero(np.diff(keys >> 47, prepend=-1))
            rank = np.arange(len(keys)) - np.repeat(starts, np.diff(starts, append=len(keys)))
            keys = keys[rank < self.beam]
            rows = np.concatenate([rows[~crowded], keys >> 47])
            cells = np.concatenate([cells[~crowded], keys & (2**31 - 1)])
        keys = np.sort((cells << 32) | rows)
        return FollowedCells(keys & (2**32 - 1), keys >> 32)

    def _children(
        self, rows: Tensor, pairs: FollowedCells, followers: Int64[Tensor, " pairs"], k: int, b: int
    ) -> Float[Tensor, "pairs b"]:
        """Return the products with the children of each pair's cell.

        There is one product per cell, which overwrites the padding of the one before.
        """
        table = self.tables[k].view(-1, b, rows.shape[1]).transpose(1, 2)
        counts = np.bincount(pairs.cells, minlength=len(table))
        most = padded_rows(int(counts.max()))
        cosines = self._room(f"cosines{k}", len(followers) + most, b, self.type)
        members = self._room("members", most, rows.shape[1], self.type)
        first = 0
        for cell in np.flatnonzero(counts).tolist():
            n = int(counts[cell])
            size = padded_rows(n)
            torch.index_select(rows, 0, followers[first : first + n], out=members[:n])
            torch.mm(members[:size], table[cell], out=cosines[first : first + size])
            first += n
        if self.any_empty[k]:
            cosines[:first][
                self.empty[k].view(-1, b)[torch.from_numpy(pairs.cells).to(self.where)]
            ] = -torch.inf
        return cosines[:first]

    def _nearest(
        self,
        x: Float32[np.ndarray, "n dim"],
        lengths: Float32[np.ndarray, " n"],
        pairs: FollowedCells,
    ) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
        """Return the nearest of the candidate leaves by exact products, the first one on a tie."""
        keys = np.sort((pairs.rows << 32) | pairs.cells)
        rows, leaves = keys >> 32, keys & (2**32 - 1)
        true = np.empty(len(rows), np.float32)
        for part in pieces(len(rows), _EXACT_PRODUCTS):
            np.vecdot(x[rows[part]], self.leaves[leaves[part]], out=true[part])
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        best = np.maximum.reduceat(true, starts)
        hits = np.flatnonzero(true == np.repeat(best, np.diff(starts, append=len(rows))))
        return leaves[hits[np.flatnonzero(np.diff(rows[hits], prepend=-1))]], best / lengths


def _where(
    mask: Bool[Tensor, "a b"],
) -> tuple[Int64[np.ndarray, " found"], Int64[np.ndarray, " found"]]:
    """Return the rows and columns of true values.

    On a CPU this is four times as fast as `torch.nonzero`.
    """
    flat = np.flatnonzero(mask.cpu().numpy())
    return flat // mask.shape[1], flat % mask.shape[1]


def _largest(
    values: Float[Tensor, " pairs"], rows: Int64[Tensor, " pairs"], n: int
) -> Float[Tensor, " n"]:
    largest = torch.full((n,), -torch.inf, device=values.device)
    return largest.scatter_reduce_(0, rows, values.float(), "amax").to(values.dtype)
