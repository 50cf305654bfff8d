"""Experiment trackers, which get the records of metrics.jsonl as they are written.

A tracker never stops a run: what it raises becomes one warning, and it gets no more records. A
resumed run continues the tracker's run. The records that are written again were sent already, and
are not sent twice. A tracker that is new to a run gets its earlier records first.
"""

import importlib
import json
import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from data_catalog.errors import UserError, first_line
from data_catalog.format.manifest import write_json
from trainer.config import Log, TrackerName, Train

TRACKER_RECORD = "trackers.json"  # of a run: the tracker's own name of the run, by tracker

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """A run of an experiment tracker."""

    @property
    def run(self) -> str:
        """The tracker's own name of the run, with which it is continued."""
        ...

    def send(self, values: Mapping[str, float], step: int) -> None:
        """Send the values of a step."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class _Weights:
    """A run of Weights & Biases or of trackio, which has the same functions."""

    def __init__(self, name: str, log: Log, config: Train, before: str | None) -> None:
        module: Any = importlib.import_module(name)
        settings = config.model_dump(mode="json")
        title = log.name or config.folder.name
        options: dict[str, Any] = {"project": log.project, "config": settings}
        if name == "wandb":
            options |= {"name": title, "id": before, "dir": str(config.folder)}
            self._run = module.init(**options, resume="allow")
            self.run = str(self._run.id)
        else:  # trackio knows a run by its name
            options |= {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
            self.run = before or f"{title}-{config.fingerprint()[:8]}"
            self._run = module.init(name=self.run, **options, resume="allow")

    def send(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _TensorBoard:
    """Event files of TensorBoard, in the folder `tensorboard` of the run."""

    run = "tensorboard"

    def __init__(self, config: Train) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - needs the package

        self._writer = SummaryWriter(str(config.folder / self.run))

    def send(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Trackers:
    """The trackers of a run."""

    def __init__(self, config: Train, members: Sequence[str]) -> None:
        """Make the trackers of `log.to`, which `begin` opens.

        Args:
            config: the config of the run.
            members: names of the basis members.
        """
        self._config, self._members = config, members
        self._open: dict[str, Tracker] = {}
        self._sent: dict[str, frozenset[str]] = {}

    def begin(self, kept: Sequence[str], dropped: Sequence[str]) -> None:
        """Open the trackers.

        Args:
            kept: lines of metrics.jsonl that stay when the run begins or resumes.
            dropped: lines after them, which the run writes again.
        """
        path = self._config.folder / TRACKER_RECORD
        before: dict[str, str] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        lines = frozenset(map(_key, _records(dropped)))
        for name in self._config.log.to:
            known = before.get(name) if kept or dropped else None
            if self._tried(name, partial(self._begin, name, known)):
                self._sent[name] = lines if known else frozenset()
                for record in _records(() if known else kept):
                    self._send(name, record)
        if self._open:
            write_json(path, {**before, **{name: one.run for name, one in self._open.items()}})

    def send(self, record: Mapping[str, Any]) -> None:
        """Send a record of metrics.jsonl to every tracker that does not have it."""
        for name in list(self._open):
            if _key(record) not in self._sent[name]:
                self._send(name, record)

    def close(self) -> None:
        """Close the trackers."""
        for name in list(self._open):
            self._tried(name, self._open[name].close)
        self._open.clear()

    def _begin(self, name: TrackerName, before: str | None) -> None:
        config = self._config
        self._open[name] = (
            _TensorBoard(config)
            if name == "tensorboard"
            else _Weights(name, config.log, config, before)
        )

    def _send(self, name: str, record: Mapping[str, Any]) -> None:
        step, values = tracked_values(record, self._members)
        if values and name in self._open:
            self._tried(name, partial(self._open[name].send, values, step))

    def _tried(self, name: str, work: Callable[[], None]) -> bool:
        """Return whether `work` succeeded. If not, warn and drop the tracker."""
        try:
            work()
        except Exception as error:  # trackers raise errors of many libraries
            logger.warning("log.to: %s failed (%s) and is left out.", name, first_line(error))
            self._open.pop(name, None)
            return False
        return True


def check_trackers(config: Train) -> None:
    """Check that the packages of `log.to` are installed.

    Raises:
        UserError: One is missing.
    """
    for name in config.log.to:
        if find_spec(name) is None:
            raise UserError(
                f"log.to: The package {name} is not installed. Install it with "
                f"`pip install 'clustermix[{name}]'`, or remove it from log.to."
            )


def tracked_values(
    record: Mapping[str, Any], members: Sequence[str]
) -> tuple[int, dict[str, float]]:
    """Return the step and the named numbers of a record of metrics.jsonl.

    Lists over the basis members get a number per member.
    """
    step = int(record.get("step", record.get("steps", 0)))
    prefix = "/".join(str(record[key]) for key in ("kind", "set") if key in record)
    values: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, list) and len(value) == len(members):
            pairs: Iterator[tuple[str, Any]] = (
                (f"{prefix}/{name}/{member}", one)
                for member, one in zip(members, value, strict=True)
            )
        else:
            pairs = iter([(f"{prefix}/{name}", value)])
        if name not in ("step", "steps", "kind", "set"):
            values |= {key: float(one) for key, one in pairs if _is_number(one)}
    return step, values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _key(record: Mapping[str, Any]) -> str:
    """Return what distinguishes a record from the others of its run."""
    return json.dumps([record.get(key) for key in ("kind", "step", "set", "stage")])


def _records(lines: Collection[str]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # a line that a crash has torn
            continue
        if isinstance(record, dict):
            yield record


def lines_around(path: Path, size_bytes: int) -> tuple[list[str], list[str]]:
    """Return the lines of a file before and after `size_bytes`. A missing file has none."""
    if not path.is_file():
        return [], []
    content = path.read_bytes()
    parts = content[:size_bytes], content[size_bytes:]
    before, after = (part.decode(errors="replace").splitlines() for part in parts)
    return before, after
