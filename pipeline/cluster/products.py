"""Cosines of many vectors with many centroids, by the fastest product of torch."""

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

EXACT_DTYPE = torch.float32


def product_device() -> torch.device:
    """Return the first visible GPU (set CUDA_VISIBLE_DEVICES to choose), or the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fast_dtype() -> torch.dtype:
    """Return bfloat16 if the hardware multiplies in it, else float32.

    It is 5 to 8 times as fast as float32 on a processor with AMX.
    """
    if product_device().type == "cuda":
        return (
            torch.bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else EXACT_DTYPE
        )
    # Older versions of torch lack this function. They use float32.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return (
        torch.bfloat16
        if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
        else EXACT_DTYPE
    )


def padded_rows(rows: int) -> int:
    """Return `rows` rounded up to one of a few sizes.

    A product in bfloat16 is compiled once per shape (2 ms), so there should be few shapes.
    """
    step = max(32, 1 << max(rows.bit_length() - 4, 0))  # adds at most an eighth
    return -(-rows // step) * step


def rounding_slack(
    best: Float[Tensor, " n"], lengths: Float[Tensor, " n"], dim: int, dtype: torch.dtype
) -> Float[Tensor, " n"]:
    """Return the rounding error by which the largest product in truth may lie below `best`.

    bfloat16 keeps 8 bits. Rounding the two products takes 2**-9 of their size each. Rounding `dim`
    factors on both sides moves a product by a standard deviation of about 2**-9 * 0.8 / sqrt(dim),
    because their errors are independent. The bound takes five of them for each of the two.
    """
    if dtype == torch.bfloat16:
        return best.abs() * 2**-8 + lengths * (2**-6 / dim**0.5)
    return lengths * 2e-6


def best_cells(
    x: Float[Tensor, "n dim"], centroids: Float[Tensor, "k dim"], empty: Int[Tensor, " empty"]
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Return the largest cosine of each row with a non-empty centroid, and that centroid.

    Among equals the first counts.
    """
    cosines = x @ centroids.T
    if len(empty):
        cosines[:, empty] = -torch.inf
    best = cosines.max(dim=1)
    return best.values, best.indices


class FlatSearch:
    """The search for the nearest of some centroids, in float32. Several threads may call it.

    Centroids that are zero do not count.
    """

    def __init__(self, centroids: Float32[np.ndarray, "k dim"]) -> None:
        self.where = product_device()
        self.table = torch.from_numpy(centroids).to(self.where)
        self.empty = torch.from_numpy(np.flatnonzero(~centroids.any(axis=1))).to(self.where)

    def __call__(
        self, x: Float[np.ndarray, "n dim"]
    ) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
        """Return the nearest centroid of each vector and its cosine."""
        rows = torch.from_numpy(np.array(x)).to(self.where, EXACT_DTYPE)
        best, cell = best_cells(rows, self.table, self.empty)
        lengths = torch.linalg.vector_norm(rows, dim=1).clamp_(min=torch.finfo(EXACT_DTYPE).tiny)
        return cell.cpu().numpy(), (best / lengths).cpu().numpy()
