"""Checkpoints of a long training: an iteration and arrays, in a file that is whole or absent."""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float32

from data_catalog.temporary import replacing


@dataclass(frozen=True)
class KmeansCheckpoint:
    """A file with the number of finished iterations and the resulting centroids."""

    path: Path

    def read(self) -> tuple[int, Float32[np.ndarray, "k dim"]] | None:
        arrays = read_arrays(self.path)
        return (int(arrays["done"]), arrays["centroids"]) if arrays else None

    def write(self, done: int, centroids: Float32[np.ndarray, "k dim"]) -> None:
        write_arrays(self.path, {"done": np.array(done), "centroids": centroids})


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays at `path`, or None if none can be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, BadZipFile):
        return None
