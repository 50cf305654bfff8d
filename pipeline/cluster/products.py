"""Cosines of many vectors with many centroids, by the machine's fastest product."""

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

from pipeline.threads import in_threads, pieces

EXACT_DTYPE = torch.float32
MAXIMUM_PRODUCT_ROWS = (
    8_192  # rows of one product at most: with their cosines they stay in the cache
)
MAXIMUM_PRODUCT_COSINES = 2**25  # of one product at most


def product_rows(k: int) -> int:
    """Rows of a product with `k` centroids."""
    return min(MAXIMUM_PRODUCT_ROWS, max(MAXIMUM_PRODUCT_COSINES // k, 32))


def product_device() -> torch.device:
    """The first GPU that is visible (choose it with CUDA_VISIBLE_DEVICES), or the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fast_dtype() -> torch.dtype:
    """bfloat16 where the hardware multiplies in it (5 to 8 times float32's rate on a processor with AMX), else float32."""
    if product_device().type == "cuda":
        return (
            torch.bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else EXACT_DTYPE
        )
    capabilities: dict[str, bool] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # an older torch does not tell: float32
    return (
        torch.bfloat16
        if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
        else EXACT_DTYPE
    )


def padded_rows(rows: int) -> int:
    """`rows` rounded up: a product in bfloat16 is compiled once for each shape (2 ms), so there should be few shapes."""
    step = max(32, 1 << max(rows.bit_length() - 4, 0))  # at most an eighth more
    return -(-rows // step) * step


def rounding_slack(
    best: Float[Tensor, " n"], lengths: Float[Tensor, " n"], dim: int, dtype: torch.dtype
) -> Float[Tensor, " n"]:
    """How far below `best` the product of a vector computed in `dtype` may lie and yet be the largest in truth, by rounding.

    bfloat16 keeps 8 bits. Rounding the two products takes 2**-9 of their size each. Rounding `dim` factors on both sides moves a product by
    a standard deviation of about 2**-9 * 0.8 / sqrt(dim), their errors being independent: five of them, for each of the two.
    """
    if dtype == torch.bfloat16:
        return best.abs() * 2**-8 + lengths * (2**-6 / dim**0.5)
    return lengths * 2e-6


def best_cells(
    x: Float[Tensor, "n dim"], centroids: Float[Tensor, "k dim"], empty: Int[Tensor, " empty"]
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """The largest cosine of each row with a centroid that is not empty, and whose it is; of equal ones the first."""
    cosines = x @ centroids.T
    if len(empty):
        cosines[:, empty] = -torch.inf
    best = cosines.max(dim=1)
    return best.values, best.indices


def exact_cells(
    x: Float[np.ndarray, "n dim"], centroids: Float32[np.ndarray, "k dim"], workers: int = 1
) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """The nearest centroid of each unit vector that is not zero, and its cosine, in float32."""
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
