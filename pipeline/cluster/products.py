"""Cosines of many vectors with many centroids, by the machine's fastest product."""

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

from pipeline.threads import in_threads, pieces

EXACT_DTYPE = torch.float32
MAXIMUM_PRODUCT_ROWS = 8_192  # per product, so that rows and cosines stay in the cache
MAXIMUM_PRODUCT_COSINES = 2**25  # per product


def product_rows(k: int) -> int:
    """Return the number of rows of a product with `k` centroids."""
    return min(MAXIMUM_PRODUCT_ROWS, max(MAXIMUM_PRODUCT_COSINES // k, 32))


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


def exact_cells(
    x: Float[np.ndarray, "n dim"], centroids: Float32[np.ndarray, "k dim"], workers: int = 1
) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """Return the nearest centroid of each unit vector and its cosine, in float32.

    Centroids that are zero do not count.
    """
    where = product_device()
    table, empty = (
        torch.from_numpy(centroids).to(where),
        torch.from_numpy(np.flatnonzero(~centroids.any(axis=1))).to(where),
    )
    cell, cosine = np.zeros(len(x), np.int64), np.zeros(len(x), np.float32)

    def place(part: slice) -> None:
        best = best_cells(torch.from_numpy(np.array(x[part])).to(where, EXACT_DTYPE), table, empty)
        cosine[part], cell[part] = best[0].cpu().numpy(), best[1].cpu().numpy()

    in_threads(place, pieces(len(x), product_rows(len(centroids))), workers)
    return cell, cosine
