"""Synthetic vectors, made on the device that a part uses."""

import shutil
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from benchmarks.tree_scale import DIM, SPREAD
from pipeline.cluster.products import product_device

CHUNK = 2**18  # vectors made at once
THEMES = 300
_COPIES = 3  # of the vectors: in memory, in the sorted sample's file, and in its cached pages


def make_vectors(count: int, modes: int) -> np.ndarray:
    """Return `(count, DIM)` float16 unit vectors, distributed as in `benchmarks.tree_scale.make`.

    Modes lie around themes, so that there is a hierarchy.
    """
    where = product_device()
    random = torch.Generator(where).manual_seed(7)

    def directions(number: int) -> torch.Tensor:
        return normalize(torch.randn(number, DIM, generator=random, device=where))

    some = int(modes**0.5) + 1
    themes, one, other = directions(THEMES), directions(some), directions(some)
    x = np.empty((count, DIM), np.float16)
    for first in range(0, count, CHUNK):
        size = min(CHUNK, count - first)
        mode = torch.randint(modes, (size,), generator=random, device=where)
        near = normalize(one[mode % some] + other[mode // some])
        centre = normalize(themes[mode % THEMES] + near)
        vectors = normalize(centre + directions(size) * SPREAD)
        torch.from_numpy(x[first : first + size]).copy_(vectors.half())
    return x


def affordable(count: int, folder: Path) -> int:
    """Return `count`, or fewer vectors if the memory or the disk of `folder` is too small."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    memory = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    room = min(memory // _COPIES, shutil.disk_usage(folder).free * 4 // 5)
    return min(count, room // (2 * DIM))
