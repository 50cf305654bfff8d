"""The sequences of a mixture as an iterable dataset of PyTorch."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from data_catalog.errors import UserError
from trainer.config import Train
from trainer.inputs import open_inputs
from trainer.model.loss import positions
from trainer.run_mixture import MixtureSources
from trainer.sampling.batches import interval_batches
from trainer.state.checkpoint import State

WAIT_SECONDS = 0.02  # between two looks at the weight log


class MixtureDataset(IterableDataset[dict[str, Tensor]]):
    """The sequences of a run in training order, from the step that the mixture has reached.

    An item is one sequence: `input_ids` are its tokens, and `labels` is the token that follows
    each, or -100 where it is masked. `shift_labels` are the same labels, under the name by which
    models of transformers take labels that are already shifted. With
    `training.separate_documents`, `position_ids` restart at each document.

    The order is the same for every number of processes and of workers of a DataLoader. A worker
    that reads ahead waits at the end of an interval until the next weights are in the weight log.
    """

    def __init__(
        self,
        sources: MixtureSources,
        position: Callable[[], tuple[int, State]],
        *,
        batch_size: int,
        rank: int,
        world: int,
    ) -> None:
        """Make a dataset; see `LoopMixture.dataset`.

        Args:
            sources: what the draws depend on.
            position: returns the number of steps taken, and the state of the run.
            batch_size: sequences that the DataLoader puts into one batch.
            rank: number of this process.
            world: number of processes.
        """
        self._sources: MixtureSources | None = sources
        self._config, self._position = sources.config, position
        self._batch_size, self._rank, self._world = batch_size, rank, world

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        own, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        items = self._items(in_worker=worker is not None)
        while batch := list(islice(items, self._batch_size)):  # one worker reads a whole batch
            if own == 0:
                yield from batch
            own = (own - 1) % workers

    def _items(self, *, in_worker: bool) -> Iterator[dict[str, Tensor]]:
        sources, config = self._opened(), self._config
        every, batch_sequences = config.mixture.update_every_steps, config.training.batch_sequences
        step, state = self._position()
        interval, steps_done = divmod(step, every)
        log, used = list(state.log), _used_before(sources, state, interval)
        while step < config.training.steps:
            log = log if len(log) > interval else self._log(state, step, in_worker)
            plan = sources.plan(interval, log[interval]["sampling"], used)
            last = min(every, config.training.steps - interval * every)
            for batch in interval_batches(
                sources.inputs.corpus,
                plan,
                range(steps_done, last),
                batch_sequences=batch_sequences,
                rank=self._rank,
                world=self._world,
            ):
                yield from self._sequences(batch.inputs, batch.labels)
            used = used + plan.counts(plan.draws)
            interval, steps_done, step = interval + 1, 0, interval * every + last

    def _sequences(
        self, inputs: Int[Tensor, "n tokens"], labels: Int[Tensor, "n tokens"]
    ) -> Iterator[dict[str, Tensor]]:
        columns = {"input_ids": inputs, "labels": labels, "shift_labels": labels}
        if self._config.training.separate_documents:
            end_of_text = self._opened().inputs.files.end_of_text
            columns["position_ids"] = positions(inputs, None, end_of_text)
        for row in range(len(inputs)):
            yield {name: values[row] for name, values in columns.items()}

    def _log(self, state: State, step: int, in_worker: bool) -> list[dict[str, Any]]:
        """Return the weight log as soon as it has the interval that begins at `step`.

        Raises:
            UserError: It never will, because this process itself has to add it.
        """
        interval = step // self._config.mixture.update_every_steps
        while in_worker:
            log: list[dict[str, Any]] = pq.read_table(
                self._config.folder / "weights.parquet"
            ).to_pylist()
            if len(log) > interval:
                return log
            parent = multiprocessing.parent_process()
            if parent is not None and not parent.is_alive():
                break
            time.sleep(WAIT_SECONDS)
        if len(state.log) > interval:
            return state.log
        raise UserError(
            f"step {step}: The next sequences depend on weights that are not chosen yet. Call "
            "after_step after every step, and read at most one step ahead."
        )

    def _opened(self) -> MixtureSources:
        if self._sources is None:  # in a worker that was not forked
            inputs = open_inputs(self._config)
            self._sources = MixtureSources(self._config, inputs, inputs.bounds(self._config))
        return self._sources

    def __getstate__(self) -> dict[str, Any]:
        step, state = self._position()
        config = self._config.model_dump(mode="json")
        about = {"config": config, "step": step, "state": state}
        return about | {"slice": (self._batch_size, self._rank, self._world)}

    def __setstate__(self, about: dict[str, Any]) -> None:
        self._config, self._sources = Train.model_validate(about["config"]), None
        position = (about["step"], about["state"])
        self._position = lambda: position
        self._batch_size, self._rank, self._world = about["slice"]


def _used_before(
    sources: MixtureSources, state: State, interval: int
) -> Int[np.ndarray, " leaves"]:
    """Return the number of draws per leaf before an interval.

    The state counts all draws before `state.step`, which is in this interval or begins the next.
    """
    if state.step // sources.config.mixture.update_every_steps == interval:
        return state.used
    used = np.zeros_like(state.used)
    for earlier in range(interval):
        plan = sources.plan(earlier, state.log[earlier]["sampling"], used)
        used = used + plan.counts(plan.draws)
    return used
