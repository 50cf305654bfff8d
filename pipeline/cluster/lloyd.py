"""Lloyd's iterations on the sphere."""

import numpy as np
import torch
from jaxtyping import Float16, Float32, Float64, Int64
from torch import Tensor

from pipeline.cluster.backends.backend import SaveIteration, product_rows
from pipeline.cluster.balance import rebalance
from pipeline.cluster.products import (
    best_cells,
    fast_dtype,
    padded_rows,
    product_device,
)
from pipeline.config import Cluster
from pipeline.threads import in_threads, pieces

# At most this many rows are kept in the type of the products as well. More rows are converted again
# in each iteration.
MAXIMUM_CONVERTED_ROWS = 2**17
SUMMED_ROWS = 2_048  # rows added at once, as doubles


def lloyd(
    x: Float16[np.ndarray, "n dim"],
    centroids: Float32[np.ndarray, "k dim"],
    config: Cluster,
    workers: int = 1,
    first: int = 0,
    save: SaveIteration | None = None,
) -> Float32[np.ndarray, "k dim"]:
    """Run iterations `first` to `config.iterations`, which lower the mean of `2 - 2 cos`.

    They end early if no row changes its cell. The sums of rows are exact in any order: a float16 is
    a multiple of 2**-24, so a double holds the sum of up to 2**29 of them. The result therefore
    depends neither on the threads nor on where a run was interrupted. After each iteration but the
    last, empty cells are mended by `pipeline.cluster.balance.rebalance`, as are small and large
    ones according to `config.least_share` and `config.most_share`.

    `save` is called after each iteration with the number of iterations done and the centroids. Pass
    these two to resume.
    """
    parts, dtype, where = (
        list(pieces(len(x), product_rows(len(centroids)))),
        fast_dtype(),
        product_device(),
    )
    copies = (
        [_converted(x[part], dtype, where) for part in parts]
        if len(x) <= MAXIMUM_CONVERTED_ROWS
        else None
    )
    cells = torch.full((len(x),), -1, dtype=torch.int64)
    sums = torch.zeros(centroids.shape, dtype=torch.float64)
    for iteration in range(first, config.iterations):
        current = torch.from_numpy(centroids).to(where, dtype)
        empty = torch.from_numpy(np.flatnonzero(~centroids.any(axis=1))).to(where)

        def place(i: int, current: Tensor = current, empty: Tensor = empty) -> Tensor:
            rows = copies[i] if copies else _converted(x[parts[i]], dtype, where)
            return best_cells(rows, current, empty)[1][: parts[i].stop - parts[i].start].cpu()

        now = torch.cat(in_threads(place, range(len(parts)), workers))
        if torch.equal(now, cells):
            return _directions(sums.numpy())
        _move(x, cells, now, sums)
        cells = now
        means = _directions(sums.numpy())
        last = iteration + 1 == config.iterations
        centroids = means if last else rebalance(x, cells.numpy(), means, config)
        if save is not None:
            save(iteration + 1, centroids)
    return centroids


def _converted(x: Float16[np.ndarray, "n dim"], dtype: torch.dtype, where: torch.device) -> Tensor:
    """Return the rows in the product's dtype, padded with zeros to one of a few lengths."""
    rows = torch.zeros((padded_rows(len(x)), x.shape[1]), dtype=dtype, device=where)
    rows[: len(x)] = torch.from_numpy(np.array(x)).to(where, torch.float32)
    return rows


def _move(
    x: Float16[np.ndarray, "n dim"],
    before: Int64[Tensor, " n"],
    after: Int64[Tensor, " n"],
    sums: Float64[Tensor, "k dim"],
) -> None:
    """Update the cells' sums, reading only rows that changed their cell."""
    moved = torch.nonzero(before != after)[:, 0]
    for part in pieces(len(moved), SUMMED_ROWS):
        which = moved[part]
        rows = torch.from_numpy(x[which.numpy()]).double()
        sums.index_add_(0, after[which], rows)
        if (left := before[which])[0] >= 0:  # all rows are new at first
            sums.index_add_(0, left, rows, alpha=-1)


def _directions(sums: Float64[np.ndarray, "k dim"]) -> Float32[np.ndarray, "k dim"]:
    """Return the sums scaled to unit norm, zero where there is none."""
    lengths = np.sqrt(np.einsum("kd,kd->k", sums, sums))[:, None]
    return np.where(lengths > 0, sums / np.where(lengths > 0, lengths, 1), 0).astype(np.float32)
