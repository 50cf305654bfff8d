"""The record of a run: one JSON object a line, `kind` first. Only the leading process writes."""

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)


class Metrics:
    """Appends to a file that a resumed run first cuts back to its checkpoint. A line is out of our hands once it is written."""

    def __init__(self, path: Path, size_bytes: int, writes: bool) -> None:
        """Open `path` and drop what lies beyond `size_bytes`: lines written after the checkpoint come again."""
        self._file = None
        if writes:
            path.touch()
            found = path.stat().st_size
            if found < size_bytes:  # cutting would then fill the file up with zeros
                logger.warning(
                    "%s: holds %d of the %d bytes written before the checkpoint; the rest is lost",
                    path,
                    found,
                    size_bytes,
                )
            os.truncate(path, min(found, size_bytes))
            self._file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, kind: str, **values: Any) -> None:
        """Add a line. Arrays become lists; NaN and the infinities, which JSON does not have, become null."""
        if self._file is not None:
            self._file.write(json.dumps(plain({"kind": kind, **values}), allow_nan=False) + "\n")

    def size_bytes(self) -> int:
        """Bytes written so far, safely on disk."""
        if self._file is None:
            return 0
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: what is not finite as None, arrays as lists."""
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
