"""The record of a run in metrics.jsonl, and its speed.

Every line of the file is a JSON object whose first key is `kind`. Only the leading process writes.
"""

import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from data_catalog.disk import writing
from data_catalog.format.own_files import open_own_file
from trainer.model.flops import utilisation
from trainer.sampling.batches import Batch
from trainer.state.checkpoint import State
from trainer.state.trackers import Trackers, lines_around

_BLOCK_BYTES = 1 << 16

logger = logging.getLogger(__name__)


class Metrics:
    """A file of records, which a resumed run first truncates to the size at its checkpoint.

    Every record is handed to the operating system as soon as it is written.
    """

    def __init__(
        self, path: Path, size_bytes: int, writes: bool, trackers: Trackers | None = None
    ) -> None:
        """Open `path` and drop everything beyond `size_bytes`.

        Lines that were written after the checkpoint are written again by the resumed run.

        Args:
            path: the file.
            size_bytes: size of the file at the checkpoint that the run resumes from.
            writes: whether this process writes the file.
            trackers: experiment trackers that get the records too.
        """
        self._path, self._file, self._trackers = path, None, trackers
        lines = lines_around(path, size_bytes) if trackers else ([], [])
        if writes:
            with writing(path):
                descriptor = open_own_file(path, os.O_RDWR | os.O_APPEND)
                _cut(path, descriptor, size_bytes)
                self._file = os.fdopen(descriptor, "a", encoding="utf-8", buffering=1)
        if trackers:
            trackers.begin(*lines)

    def write(self, kind: str, **values: Any) -> None:
        """Append a record. Arrays become lists; NaN and infinities become null."""
        if self._file is not None:
            record = json_ready({"kind": kind, **values})
            with writing(self._path):
                self._file.write(json.dumps(record, allow_nan=False) + "\n")
            if self._trackers:
                self._trackers.send(record)

    def size_bytes(self) -> int:
        """Flush the file to disk and return its size in bytes."""
        if self._file is None:
            return 0
        with writing(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            return self._file.tell()

    def close(self) -> None:
        """Close the file and the trackers."""
        if self._trackers:
            self._trackers.close()
        if self._file is not None:
            with writing(self._path):
                self._file.close()


def _cut(path: Path, descriptor: int, size_bytes: int) -> None:
    """Shorten the open file to `size_bytes` and a whole number of lines.

    A line that a crash or a copy has torn is dropped, so that the next record is on its own line.
    """
    with os.fdopen(os.dup(descriptor), "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size < size_bytes:  # Truncating would extend the file with zeros.
            logger.warning(
                "%s: %d of the %d bytes before the checkpoint are left. The rest is lost.",
                path,
                size,
                size_bytes,
            )
        file.truncate(min(size, size_bytes))
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _BLOCK_BYTES)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            end = start
        file.truncate(0)


@dataclass
class Speed:
    """Clock of a run, and rates since the last record. A checkpoint contains no rates."""

    model: PreTrainedModel
    sequence_tokens: int
    device: torch.device
    world: int
    _started: float = 0.0
    _last: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)

    def begin(self, state: State) -> None:
        """Start the clock where it stopped when `state` was saved."""
        self._started = time.perf_counter() - state.seconds
        self._mark(state)

    def seconds(self) -> float:
        """Return the run time so far, over all segments of the run, in seconds."""
        return time.perf_counter() - self._started

    def _mark(self, state: State) -> None:
        """Start the rates of the next record at `state`."""
        self._last = (state.tokens, state.seconds, state.data_seconds, state.scoring_seconds)

    def since_last(self, state: State) -> dict[str, float | None]:
        """Return the speed as values for metrics.jsonl, and start measuring from `state`.

        These are the cumulative seconds of the run, and since the last record: tokens per second,
        the shares of the time spent waiting for data and measuring for the mixer, and the model
        FLOPs utilisation (None if the device's peak is unknown).
        """
        before = self._last
        self._mark(state)
        tokens, seconds, waiting, scoring = (
            now - then for now, then in zip(self._last, before, strict=True)
        )
        seconds = max(seconds, 1e-9)
        rate = tokens / seconds
        return {
            "seconds": state.seconds,
            "data_seconds": state.data_seconds,
            "scoring_seconds": state.scoring_seconds,
            "tokens_per_second": rate,
            "data_share": waiting / seconds,
            "scoring_share": scoring / seconds,
            "mfu": utilisation(self.model, self.sequence_tokens, rate, self.device, self.world),
        }


def timed_batches(state: State, batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield `batches`, and add the time spent waiting for each to `state.data_seconds`."""
    while True:
        begun = time.perf_counter()
        batch = next(batches, None)
        state.data_seconds += time.perf_counter() - begun
        if batch is None:
            return
        yield batch


def json_ready(value: Any) -> Any:
    """Return `value` in a form that JSON can hold: non-finite numbers as None, arrays as lists."""
    if isinstance(value, np.ndarray | np.generic):
        return json_ready(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    return value
