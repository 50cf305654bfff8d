"""An open training run, with a method for each of its actions.

`loop.py` calls them in order. An interval is a number of steps, `mixture.update_every_steps`, in
which the mixture weights are fixed. The files of a run call it a stage.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from trainer.inputs import Inputs, refill_catalog
from trainer.mixers import Mixer, Observation
from trainer.mixers.simplex import final_weights
from trainer.model.engine import Engine
from trainer.model.optimizer import learning_rate_at, set_learning_rate
from trainer.sampling.batches import Batch
from trainer.sampling.bounds import DrawBounds
from trainer.sampling.permutation import generator
from trainer.sampling.plan import Drawn, IntervalPlan, draw_interval, leaf_weights
from trainer.state.checkpoint import State, write_log
from trainer.state.checkpoint_writer import CheckpointWriter
from trainer.state.export import context_tokens, export_model, repeats, write_usage
from trainer.state.metrics import Metrics, Speed
from trainer.state.model_card import model_card
from trainer.state.numeric_checks import BatchOrigin, check_finite, check_replicas, outlier
from trainer.state.stored_run import StoredRun, finish_run
from trainer.target_shares import TargetShares


@dataclass(frozen=True)
class Run:
    """Everything that an open run consists of."""

    config: Train
    """The config, with the measurement cadence that `mixture.overhead_budget` allows."""
    identity: dict[str, str]
    """Fingerprints of the config, the catalog and the tokenizer."""
    team: Team
    inputs: Inputs
    bounds: DrawBounds | None
    engine: Engine
    reference: Engine | None
    """Reference model, for a mixer that needs its losses."""
    optimizer: torch.optim.Optimizer
    mixer: Mixer
    targets: TargetShares
    state: State
    metrics: Metrics
    writer: CheckpointWriter
    speed: Speed
    stored: StoredRun | None = None
    """The run in a store, if `config.out` is a URL."""

    @property
    def target_shares(self) -> dict[str, float]:
        """Present shares of the targets that the mixture is made for, which sum to 1."""
        return self.targets.shares(self.state.mixer.memory)

    def begin_interval(self, interval: int) -> None:
        """Let the mixer choose the weights of the interval that begins now, and log them."""
        config, state = self.config, self.state
        state.scored_batches = np.zeros((0, 0))
        if self.engine.copied:
            check_replicas(self.engine.digest(), self.team)
        scores = None
        if interval == 0:
            begun = time.perf_counter()
            memory = self.targets.begun(self.engine, self.inputs, state.mixer.memory)
            state.mixer = replace(state.mixer, memory=memory)
            state.scoring_seconds += time.perf_counter() - begun
        elif not self.mixer.needs:
            state.mixer = self.mixer.propose(state.mixer, self._observation())
        elif state.step >= config.mixture.warmup_steps:
            scores = self._update_weights(interval)
        first = state.step * config.training.batch_sequences
        alpha, sampling = state.mixer.alpha.tolist(), state.mixer.sampling.tolist()
        row = {"stage": interval, "first_sequence": first, "alpha": alpha, "sampling": sampling}
        state.log.append({**row, "scores": scores})
        if self.team.is_leader:
            write_log(config.folder / "weights.parquet", state.log)
        if self.bounds:
            moved = self.plan(interval).moved
            self.metrics.write("bounds", step=state.step, stage=interval, moved=moved)

    def plan(self, interval: int) -> IntervalPlan:
        """Return the sequences of an interval, as the weight log determines them."""
        config, log = self.config, self.state.log
        weights = leaf_weights(np.array(log[interval]["sampling"]), self.inputs.basis.matrix)
        weights = self.inputs.drawn(weights, config)
        steps = config.mixture.update_every_steps
        if self.bounds:  # Bounds are exact for the number of steps that the run takes.
            steps = min(steps, config.training.steps - interval * steps)
        return draw_interval(
            interval,
            weights,
            self.inputs.corpus.sequences,
            self.state.used,
            draws=steps * config.training.batch_sequences,
            seed=config.seed,
            bounds=self.bounds,
        )

    def scores_next_batch(self) -> bool:
        """Return whether the next step, one of the last of an interval, also scores its batch."""
        mixture, steps_left = self.config.mixture, self._interval_steps_left()
        end = self.state.step + steps_left
        updates = mixture.warmup_steps <= end < self.config.training.steps
        return mixture.measure_on == "batch" and updates and steps_left <= mixture.measure_steps

    def take_step(
        self,
        batch: Batch,
        origin: BatchOrigin,
        stop: bool,
        scored_plan: IntervalPlan | None = None,
    ) -> bool:
        """Take one optimizer step on a global batch.

        Args:
            batch: this process's slice of the global batch.
            origin: origin of every sequence of the global batch.
            stop: whether this process was asked to stop.
            scored_plan: plan of the interval, if the sequences of the batch are scored; None
                otherwise.

        Returns:
            True if any process was asked to stop. The result is the same on all processes.

        Raises:
            UserError: The loss or the gradient is not finite. The weights are unchanged.
        """
        config, state, team = self.config, self.state, self.team
        rate = learning_rate_at(config, state.step)
        set_learning_rate(self.optimizer, rate)
        if scored_plan is None:
            self.engine.clear()
            share, nats = self.engine.backward(batch, regularised=True)
        else:
            share, nats = self._backward_and_score(batch, origin.leaves, scored_plan)
        norm = self.engine.clip(config.optimizer.clip)
        sums: list[float] = team.sum(torch.stack([share, share.new_tensor(float(stop))])).tolist()
        loss, stops = sums
        check_finite(
            config.folder, team, step=state.step, loss=loss, norm=norm, nats=nats, origin=origin
        )
        deviations = config.optimizer.skip_outliers
        skipped, state.recent_steps = outlier(state.recent_steps, loss, norm, deviations)
        if skipped:
            self.metrics.write("skipped", step=state.step, loss=loss, gradient_norm=norm)
        else:
            self.optimizer.step()
            self.engine.balance()
        state.step += 1
        state.tokens += batch.total
        if state.step % config.training.log_every_steps == 0:
            self._log_step(batch, loss, rate, norm)
        return stops > 0

    def evaluate(self, sets: tuple[EvaluationSet, ...]) -> list[HeldOutLoss]:
        """Measure the held-out losses of `sets` and of the objectives, and log them."""
        results = held_out_losses(self.engine, sets, self.inputs.byte_lengths)
        for objective in (self.inputs.objective, self.inputs.choices):
            results += objective.evaluate(self.engine) if objective else []
        for result in results:
            where = {"step": self.state.step, "tokens": self.state.tokens}
            self.metrics.write("eval", **where, **result.record())
        return results

    def after_step(self, stop: bool) -> None:
        """Evaluate and checkpoint if due.

        Also checkpoint when asked to stop, unless checkpointing is disabled.
        """
        config, step = self.config, self.state.step
        phase_ends = (config.training.steps, config.steps)
        evaluate, save = config.evaluation.every_steps, config.checkpoint.every_steps
        if evaluate and step % evaluate == 0 and step not in phase_ends:
            self.evaluate(self.inputs.validation_sets)
        if save and (step % save == 0 or step in phase_ends or stop):
            self.save()

    def save(self) -> None:
        """Write a checkpoint."""
        self.state.seconds = self.speed.seconds()
        self.state.metrics_bytes = self.metrics.size_bytes()
        self.writer.save(self.state, self.engine.model, self.optimizer, self.identity)

    def begin_finetuning(self) -> None:
        """Evaluate and export the pretrained model, and reset the optimizer's state."""
        self._export("pretrained", self.evaluate(self.inputs.final_sets))
        if self.stored is not None and self.team.is_leader:
            self.stored.put_pretrained()
        self.optimizer.state.clear()
        self.state.recent_steps = np.zeros((0, 2))

    def finish(self) -> None:
        """Evaluate, and write the totals and the model, whose folder marks the run as finished."""
        config, state, sequences = self.config, self.state, self.inputs.corpus.sequences
        results = self.evaluate(self.inputs.final_sets)
        used = self.draws_so_far()
        self.metrics.write(
            "final",
            steps=state.step,
            tokens=state.tokens,
            seconds=self.speed.seconds(),
            scoring_seconds=state.scoring_seconds,
            data_seconds=state.data_seconds,
            repeats=repeats(used, sequences),
            model_parameters=sum(p.numel() for p in self.engine.model.parameters()),
        )
        if self.team.is_leader:
            write_usage(config.folder / "usage.parquet", used, sequences)
            weights = zip(self.inputs.basis.names, final_weights(state.mixer).tolist(), strict=True)
            write_json(config.folder / "weights.json", dict(weights))
        self._export("model", results)
        self.metrics.close()
        if self.team.is_leader:
            finish_run(config.folder, self.stored)
        self.team.wait()

    def draws_so_far(self) -> Int[np.ndarray, " leaves"]:
        """Return the number of draws per leaf, including those of an unfinished interval."""
        config, used = self.config, self.state.used
        step = min(self.state.step, config.training.steps)
        interval, steps_done = divmod(step, config.mixture.update_every_steps)
        if not steps_done:
            return used
        draws = steps_done * config.training.batch_sequences
        return used + self.plan(interval).counts(draws)

    def _interval_steps_left(self) -> int:
        every = self.config.mixture.update_every_steps
        return every - self.state.step % every

    def _backward_and_score(
        self, batch: Batch, leaves: Int[np.ndarray, " sequences"], plan: IntervalPlan
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " own"]]:
        """Run the backward pass of a batch and score its sequences.

        The last batch of an interval completes the measurement. The scores of the others wait in
        the state, so that a run can resume between them.
        """
        config, state, steps_left = self.config, self.state, self._interval_steps_left()
        number = (plan.interval + 2) * config.mixture.measure_steps - steps_left
        shares, optimizer = self.target_shares, self.optimizer
        scored, share, nats, seconds = score_batch(
            self.engine, config, self.inputs, shares, number, batch, leaves, optimizer
        )
        state.scored_batches = np.stack([*state.scored_batches, scored])
        state.scoring_seconds += seconds
        if steps_left == 1:
            measurement = measured_on_batches(
                self.team, config, self.inputs, plan, state.scored_batches
            )
            state.pending_measurement = measurement.flat()
        return share, nats

    def _update_weights(self, interval: int) -> list[float] | None:
        """Make the measurements that the mixer needs, update the weights and return the scores."""
        begun = time.perf_counter()
        config, state = self.config, self.state
        memory, adjusted = self.targets.updated(
            self.engine, self.inputs, state.mixer.memory, state.tokens
        )
        state.mixer = replace(state.mixer, memory=memory)
        if len(state.pending_measurement):  # taken on the last training batches
            measurement = MixerMeasurement.from_flat(state.pending_measurement)
            state.pending_measurement = np.zeros(0)
        else:
            measurement = observe(
                self.mixer.needs,
                self.engine,
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

    def _export(self, name: str, results: Sequence[HeldOutLoss]) -> None:
        config, inputs, model = self.config, self.inputs, self.engine.model
        refill_catalog(config, inputs.files)
        context = context_tokens(model, config.training.sequence_tokens)
        card = model_card(config, inputs, model, self.state, results, context)
        export_model(config.folder / name, model, inputs.files, context, card, self.team)

    def _observation(self, measurement: MixerMeasurement | None = None) -> Observation:
        """Return the input of the mixer: the progress of the run, and `measurement` if any."""
        state, log = self.state, self.state.log
        tokens = np.sum([row["sampling"] for row in log], axis=0) * (state.tokens / len(log))
        measurement = measurement or MixerMeasurement.unknown(len(tokens))
        # Otherwise it is that of the mixer. For single domains it is read from the catalog.
        changed = self.targets.can_change
        prior = self.inputs.prior(self.config, self.target_shares) if changed else None
        return measurement.observation(state.step, self.config.training.steps, tokens, prior)

    def _log_step(self, batch: Batch, loss: float, rate: float, norm: float) -> None:
        """Write a `train` record.

        If every step is logged, it includes a digest of every process's batch.
        """
        state = self.state
        state.seconds = self.speed.seconds()
        digests = {}
        if self.config.training.log_every_steps == 1:
            digests["batch"] = self.team.gather(batch.digest())
        self.metrics.write(
            "train",
            step=state.step,
            loss=loss,
            lr=rate,
            tokens=state.tokens,
            gradient_norm=norm,
            **self.speed.since_last(state),
            **digests,
        )
