"""The mixture of an open run: its draws, its measurements and its weight log.

`run.py` adds the steps of the trainer to it, and `library.py` those of any other loop. An interval
is a number of steps, `mixture.update_every_steps`, in which the mixture weights are fixed. The
files of a run call it a stage.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_catalog.format.manifest import write_json
from trainer.alignment.observe import (
    MixerMeasurement,
    measured_on_batches,
    observe,
    score_batch,
)
from trainer.config import Train
from trainer.distributed import Team
from trainer.evaluation.evaluate import EvaluationSet, HeldOutLoss, held_out_losses
from trainer.inputs import Inputs
from trainer.mixers import Mixer, Observation
from trainer.mixers.simplex import final_weights
from trainer.model.engine import Engine
from trainer.sampling.batches import Batch
from trainer.sampling.bounds import DrawBounds
from trainer.sampling.permutation import generator
from trainer.sampling.plan import Drawn, IntervalPlan, draw_interval, leaf_weights
from trainer.state.checkpoint import State, write_log
from trainer.state.export import repeats, write_usage
from trainer.state.metrics import Metrics
from trainer.target_shares import TargetShares


@dataclass(frozen=True)
class MixtureSources:
    """All that the draws of a run depend on, apart from its weight log."""

    config: Train
    """The config, with the measurement cadence that `mixture.overhead_budget` allows."""
    inputs: Inputs
    bounds: DrawBounds | None

    def plan(
        self, interval: int, sampling: Sequence[float], used: Int[np.ndarray, " leaves"]
    ) -> IntervalPlan:
        """Return the sequences of an interval.

        Args:
            interval: number of the interval.
            sampling: weights of the basis members, from the weight log.
            used: number of draws per leaf in all earlier intervals.
        """
        config = self.config
        weights = leaf_weights(np.array(sampling), self.inputs.basis.matrix)
        weights = self.inputs.drawn(weights, config)
        steps = config.mixture.update_every_steps
        if self.bounds:  # Bounds are exact for the number of steps that the run takes.
            steps = min(steps, config.training.steps - interval * steps)
        return draw_interval(
            interval,
            weights,
            self.inputs.corpus.sequences,
            used,
            draws=steps * config.training.batch_sequences,
            seed=config.seed,
            bounds=self.bounds,
        )


@dataclass(frozen=True)
class RunMixture(MixtureSources):
    """The mixture of a run, with the model that it is measured on."""

    team: Team
    engine: Engine | None
    """The model. None: nothing is ever measured."""
    reference: Engine | None
    """Reference model, for a mixer that needs its losses."""
    optimizer: torch.optim.Optimizer | None
    """The run's optimizer, which `mixture.preconditioned` needs."""
    mixer: Mixer
    targets: TargetShares
    state: State
    metrics: Metrics

    @property
    def measured(self) -> Engine:
        """The model that measurements are made on.

        Raises:
            ValueError: There is none.
        """
        if self.engine is None:
            raise ValueError("RunMixture.engine is None, but a measurement is needed")
        return self.engine

    @property
    def target_shares(self) -> dict[str, float]:
        """Present shares of the targets that the mixture is made for, which sum to 1."""
        return self.targets.shares(self.state.mixer.memory)

    def begin_interval(self, interval: int) -> None:
        """Let the mixer choose the weights of the interval that begins now, and log them."""
        state = self.state
        state.scored_batches = np.zeros((0, 0))
        scores = None
        if interval == 0:
            self.begin_targets()
        elif not self.mixer.needs:
            state.mixer = self.mixer.propose(state.mixer, self._observation())
        elif state.step >= self.config.mixture.warmup_steps:
            scores = self._update_weights(interval)
        append_weights(self.config, state, interval, scores, writes=self.team.is_leader)
        if self.bounds:
            moved = self.interval_plan(interval).moved
            self.metrics.write("bounds", step=state.step, stage=interval, moved=moved)

    def begin_targets(self) -> None:
        """Make the measurement before the first step that the shares of the targets need."""
        begun, state = time.perf_counter(), self.state
        if not self.targets.can_change:
            return
        memory = self.targets.begun(self.measured, self.inputs, state.mixer.memory)
        state.mixer = replace(state.mixer, memory=memory)
        state.scoring_seconds += time.perf_counter() - begun

    def interval_plan(self, interval: int) -> IntervalPlan:
        """Return the sequences of an interval, as the weight log determines them."""
        return self.plan(interval, self.state.log[interval]["sampling"], self.state.used)

    def scores_next_batch(self) -> bool:
        """Return whether the next step, one of the last of an interval, also scores its batch."""
        mixture, steps_left = self.config.mixture, self.interval_steps_left()
        end = self.state.step + steps_left
        updates = mixture.warmup_steps <= end < self.config.training.steps
        return mixture.measure_on == "batch" and updates and steps_left <= mixture.measure_steps

    def interval_steps_left(self) -> int:
        """Return the number of steps until the end of the interval."""
        every = self.config.mixture.update_every_steps
        return every - self.state.step % every

    def score(
        self,
        batch: Batch,
        leaves: Int[np.ndarray, " sequences"],
        plan: IntervalPlan,
        *,
        trains: bool = True,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " own"]]:
        """Run the backward pass of a batch and score its sequences.

        The last batch of an interval completes the measurement. The scores of the others wait in
        the state, so that a run can resume between them.

        Args:
            batch: this process's slice of the global batch.
            leaves: leaf of every sequence of the global batch.
            plan: plan of the interval.
            trains: the gradient is that of a training step; see `backward_and_score`.

        Returns:
            This process's share of the mean loss, and the sum of nats of each of its sequences.
        """
        config, state, steps_left = self.config, self.state, self.interval_steps_left()
        number = (plan.interval + 2) * config.mixture.measure_steps - steps_left
        scored, share, nats, seconds = score_batch(
            self.measured,
            config,
            self.inputs,
            self.target_shares,
            number,
            batch,
            leaves,
            self.optimizer,
            trains=trains,
        )
        state.scored_batches = np.stack([*state.scored_batches, scored])
        state.scoring_seconds += seconds
        if steps_left == 1:
            measurement = measured_on_batches(
                self.team, config, self.inputs, plan, state.scored_batches
            )
            state.pending_measurement = measurement.flat()
        return share, nats

    def evaluate(self, sets: tuple[EvaluationSet, ...]) -> list[HeldOutLoss]:
        """Measure the held-out losses of `sets` and of the objectives, and log them."""
        results = held_out_losses(self.measured, sets, self.inputs.byte_lengths)
        for objective in (self.inputs.objective, self.inputs.choices):
            results += objective.evaluate(self.measured) if objective else []
        for result in results:
            where = {"step": self.state.step, "tokens": self.state.tokens}
            self.metrics.write("eval", **where, **result.record())
        return results

    def draws_so_far(self) -> Int[np.ndarray, " leaves"]:
        """Return the number of draws per leaf, including those of an unfinished interval."""
        config, used = self.config, self.state.used
        step = min(self.state.step, config.training.steps)
        interval, steps_done = divmod(step, config.mixture.update_every_steps)
        if not steps_done:
            return used
        draws = steps_done * config.training.batch_sequences
        return used + self.interval_plan(interval).counts(draws)

    def write_totals(self, seconds: float, parameters: int) -> None:
        """Write the totals of a finished run, its use of the data and its final weights.

        Args:
            seconds: the run time.
            parameters: number of the model's parameters.
        """
        state, folder = self.state, self.config.folder
        used, sequences = self.draws_so_far(), self.inputs.corpus.sequences
        self.metrics.write(
            "final",
            steps=state.step,
            tokens=state.tokens,
            seconds=seconds,
            scoring_seconds=state.scoring_seconds,
            data_seconds=state.data_seconds,
            repeats=repeats(used, sequences),
            model_parameters=parameters,
        )
        if self.team.is_leader:
            write_usage(folder / "usage.parquet", used, sequences)
            weights = zip(self.inputs.basis.names, final_weights(state.mixer).tolist(), strict=True)
            write_json(folder / "weights.json", dict(weights))

    def _update_weights(self, interval: int) -> list[float] | None:
        """Make the measurements that the mixer needs, update the weights and return the scores."""
        begun = time.perf_counter()
        config, state = self.config, self.state
        memory, adjusted = self.targets.updated(
            self.measured, self.inputs, state.mixer.memory, state.tokens
        )
        state.mixer = replace(state.mixer, memory=memory)
        if len(state.pending_measurement):  # taken on the last training batches
            measurement = MixerMeasurement.from_flat(state.pending_measurement)
            state.pending_measurement = np.zeros(0)
        else:
            measurement = observe(
                self.mixer.needs,
                self.measured,
                self.reference,
                config,
                self.inputs,
                self.target_shares,
                interval,
                self.optimizer,
                Drawn(state.used, self.bounds),
            )
        if config.mixture.shuffled_scores:
            measurement = measurement.shuffled(generator(config.seed, "shuffled", interval))
        measurement.require_finite(self.mixer.needs, state.step)
        state.mixer = self.mixer.propose(state.mixer, self._observation(measurement))
        seconds = time.perf_counter() - begun
        state.scoring_seconds += seconds
        self.metrics.write(
            "update",
            step=state.step,
            stage=interval,
            alpha=state.mixer.alpha,
            sampling=state.mixer.sampling,
            seconds=seconds,
            **measurement.record(),
            **adjusted,
        )
        return measurement.alignment.scores.tolist() if "scores" in self.mixer.needs else None

    def _observation(self, measurement: MixerMeasurement | None = None) -> Observation:
        """Return the input of the mixer: the progress of the run, and `measurement` if any."""
        state, log = self.state, self.state.log
        tokens = np.sum([row["sampling"] for row in log], axis=0) * (state.tokens / len(log))
        measurement = measurement or MixerMeasurement.unknown(len(tokens))
        # Otherwise it is that of the mixer. For single domains it is read from the catalog.
        changed = self.targets.can_change
        prior = self.inputs.prior(self.config, self.target_shares) if changed else None
        return measurement.observation(state.step, self.config.training.steps, tokens, prior)


def append_weights(
    config: Train, state: State, interval: int, scores: list[float] | None, *, writes: bool
) -> None:
    """Add the weights of the interval that begins at `state.step` to the weight log.

    Args:
        config: the config of the run.
        state: the state of the run.
        interval: number of the interval.
        scores: scores that the weights were computed from. None: there were none.
        writes: whether this process writes the file.
    """
    row: dict[str, Any] = {
        "stage": interval,
        "first_sequence": state.step * config.training.batch_sequences,
        "alpha": state.mixer.alpha.tolist(),
        "sampling": state.mixer.sampling.tolist(),
        "scores": scores,
    }
    state.log.append(row)
    if writes:
        write_log(config.folder / "weights.parquet", state.log)
