"""The record of a run: one JSON object a line, `kind` first. Only the leading process writes."""

import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from trainer.model.flops import utilisation
from trainer.state.checkpoint import State

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
            self._file.write(
                json.dumps(json_ready({"kind": kind, **values}), allow_nan=False) + "\n"
            )

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


@dataclass
class Speed:
    """Rates since the last record; nothing of it is kept in a checkpoint."""

    model: PreTrainedModel
    sequence_tokens: int
    device: torch.device
    world: int
    _last: tuple[float, ...] = field(default=(0.0, 0.0, 0.0, 0.0))

    def begin(self, state: State) -> None:
        self._last = (state.tokens, state.seconds, state.data_seconds, state.scoring_seconds)

    def since_last(self, state: State) -> dict[str, float | None]:
        """For a record of metrics.jsonl: cumulated seconds; then, since the last record, tokens a second, the shares of the time spent
        waiting for data and measuring, and the model FLOPs utilisation where the device's peak is known.
        """
        before = self._last
        self.begin(state)
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


def json_ready(value: Any) -> Any:
    """`value` as JSON can hold it: what is not finite as None, arrays as lists."""
    if isinstance(value, np.ndarray | np.generic):
        return json_ready(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    return value
