"""The record of a run: one JSON object a line, `kind` first. Only the leading process writes."""

import json
import os
from pathlib import Path
from typing import Any


class Metrics:
    """Appends to a file that a resumed run first cuts back to its checkpoint."""

    def __init__(self, path: Path, size_bytes: int, writes: bool) -> None:
        """Open `path` and drop what lies beyond `size_bytes`: lines written after the checkpoint come again."""
        self._file = None
        if writes:
            path.touch()
            os.truncate(path, size_bytes)
            self._file = path.open("a", encoding="utf-8")

    def write(self, kind: str, **values: Any) -> None:
        if self._file is not None:
            self._file.write(json.dumps({"kind": kind, **values}) + "\n")
            self._file.flush()

    def size_bytes(self) -> int:
        """Bytes written so far, safely on disk."""
        if self._file is None:
            return 0
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
