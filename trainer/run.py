"""One run and its verbs: begin a stage, plan it, take a step, measure, save, finish. `loop.py` says when each happens."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from data_catalog.errors import UserError
from data_catalog.format.manifest import write_json
from trainer.alignment.measure import SequenceBackend, backward_and_score, batch_alignment
from trainer.alignment.observe import MixerMeasurement, direction_of, observe
from trainer.config import Train
from trainer.distributed import Team, process_slice
from trainer.evaluation.evaluate import EvaluationSet, held_out_losses
from trainer.inputs import Inputs
from trainer.mixers import Mixer, Observation
from trainer.mixers.simplex import final_weights
from trainer.model.engine import Engine
from trainer.model.optimizer import learning_rate, set_learning_rate
from trainer.sampling.batches import Batch
from trainer.sampling.bounds import DrawBounds
from trainer.sampling.plan import IntervalPlan, draw_interval, leaf_weights
from trainer.state.checkpoint import CheckpointWriter, State, write_log
from trainer.state.export import export_model, repeats, write_usage
from trainer.state.metrics import Metrics, Speed
from trainer.state.numeric_checks import BatchOrigin, check_finite, check_replicas


@dataclass(frozen=True)
class Run:
    config: Train  # with the cadence of updates that its overhead budget allows
    identity: dict[str, str]
    team: Team
    inputs: Inputs
    bounds: DrawBounds | None
    engine: Engine
    reference: Engine | None  # whose losses are subtracted, for a mixer that needs them
    optimizer: torch.optim.Optimizer
    mixer: Mixer
    state: State
    metrics: Metrics
    writer: CheckpointWriter
    speed: Speed
    started: float  # on the clock of time.perf_counter, less the seconds of earlier segments

    def begin_stage(self, stage: int) -> None:
        """Let the mixer choose the weights of a stage that begins now, and add them to the log."""
        config, state = self.config, self.state
        if self.team.world > 1 and not self.engine.sharded:
            check_replicas(self.engine.digest(), self.team)
        scores = None
        if stage > 0 and not self.mixer.needs:
            state.mixer = self.mixer.propose(state.mixer, self._seen(None))
        elif stage > 0 and state.step >= config.mixture.warmup_steps:
            scores = self._update(stage)
        row = {
            "stage": stage,
            "first_sequence": state.step * config.training.batch_sequences,
            "alpha": state.mixer.alpha.tolist(),
            "sampling": state.mixer.sampling.tolist(),
            "scores": scores,
        }
        state.log.append(row)
        if self.team.leads:
            write_log(config.out / "weights.parquet", state.log)
        if self.bounds:
            self.metrics.write("bounds", step=state.step, stage=stage, moved=self.plan(stage).moved)

    def plan(self, stage: int) -> IntervalPlan:
        """Draw a stage from the weights that the log has for it."""
        config = self.config
        weights = leaf_weights(
            np.array(self.state.log[stage]["sampling"]), self.inputs.basis.matrix
        )
        every, batch = config.mixture.update_every_steps, config.training.batch_sequences
        draws = (
            min(every, config.training.steps - stage * every) * batch
            if self.bounds
            else every * batch
        )
        return draw_interval(
            stage,
            weights,
            self.inputs.corpus.sequences,
            self.state.used,
            draws=draws,
            seed=config.seed,
            bounds=self.bounds,
        )

    def listens(self) -> bool:
        """Whether the members are scored on the batch of the step that comes now, if it is a stage's last: an update follows it."""
        mixture, after = self.config.mixture, self.state.step + 1
        return (
            mixture.measure_on == "batch"
            and mixture.warmup_steps <= after < self.config.training.steps
        )

    def take_step(
        self, batch: Batch, drawn: BatchOrigin, stop: bool, listen: IntervalPlan | None = None
    ) -> bool:
        """One optimizer step on the global batch of which `batch` is this process's part.

        Args:
            drawn: where the global batch is from.
            listen: the plan of the stage whose last step this is, if its members are scored on this very batch.

        Returns:
            Whether any process was asked to stop: all learn it at the same step.

        Raises:
            UserError: the loss or the gradient is not finite. The weights are not touched.
        """
        config, state, us = self.config, self.state, self.team
        if state.step < config.training.steps:
            rate = learning_rate(config.optimizer, state.step, config.training.steps)
        else:
            rate = learning_rate(
                config.finetune, state.step - config.training.steps, config.finetune.steps
            )
        set_learning_rate(self.optimizer, rate)
        if listen is None:
            self.engine.clear()
            share, nats = self.engine.backward(batch)
        else:
            share, nats = self._backward_heard(batch, drawn, listen)
        norm = self.engine.clip(config.optimizer.clip)
        sums: list[float] = us.sum(torch.stack([share, share.new_tensor(float(stop))])).tolist()
        loss, stops = sums
        check_finite(config.out, us, step=state.step, loss=loss, norm=norm, nats=nats, drawn=drawn)
        self.optimizer.step()
        state.step += 1
        state.tokens += batch.total
        if state.step % config.training.log_every_steps == 0:
            digests = (
                {"batch": us.gather(batch.digest())} if config.training.log_every_steps == 1 else {}
            )
            state.seconds = self.seconds()
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
        return stops > 0

    def evaluate(self, sets: tuple[EvaluationSet, ...]) -> None:
        """Measure held-out losses."""
        where = {"step": self.state.step, "tokens": self.state.tokens}
        for found in (
            *held_out_losses(self.engine, sets, self.inputs.byte_lengths),
            *self.inputs.objective.evaluate(self.engine),
        ):
            self.metrics.write("eval", **where, **found.record())

    def now_and_then(self, stop: bool) -> None:
        """After a step: a measurement or a checkpoint, where one is due. A run that is told to stop saves one too, if it saves any."""
        step, last = self.state.step, self.state.step == self.config.steps
        evaluate, keep = self.config.evaluation.every_steps, self.config.checkpoint.every_steps
        if (
            evaluate
            and step % evaluate == 0
            and step not in (self.config.training.steps, self.config.steps)
        ):
            self.evaluate(self.inputs.during)
        if keep and (step % keep == 0 or step == self.config.training.steps or last or stop):
            self.save()

    def waited_for(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; the time until each is there is counted."""
        while True:
            begun = time.perf_counter()
            batch = next(batches, None)
            self.state.data_seconds += time.perf_counter() - begun
            if batch is None:
                return
            yield batch

    def save(self) -> None:
        self.state.seconds, self.state.metrics_bytes = self.seconds(), self.metrics.size_bytes()
        self.writer.save(self.state, self.engine.model, self.optimizer, self.identity)

    def begin_finetuning(self) -> None:
        """Keep the model as it is, and forget what the optimizer remembers of training."""
        self.evaluate(self.inputs.at_the_end)
        export_model(
            self.config.out / "pretrained", self.engine.model, self.inputs.files, self.team.leads
        )
        self.optimizer.state.clear()

    def finish(self) -> None:
        """Write the totals and the model; the model comes last, and says that the run is finished."""
        config, state, sequences, used = (
            self.config,
            self.state,
            self.inputs.corpus.sequences,
            self.drawn(),
        )
        self.metrics.write(
            "final",
            steps=state.step,
            tokens=state.tokens,
            seconds=self.seconds(),
            scoring_seconds=state.scoring_seconds,
            data_seconds=state.data_seconds,
            repeats=repeats(used, sequences),
            model_parameters=sum(p.numel() for p in self.engine.model.parameters()),
        )
        if self.team.leads:
            write_usage(config.out / "usage.parquet", used, sequences)
            weights = dict(
                zip(self.inputs.basis.names, final_weights(state.mixer).tolist(), strict=True)
            )
            write_json(config.out / "weights.json", weights)
        export_model(config.out / "model", self.engine.model, self.inputs.files, self.team.leads)
        self.team.wait()

    def drawn(self) -> Int[np.ndarray, " leaves"]:
        """Draws of each leaf so far, those of an unfinished stage included."""
        stage, done = divmod(
            min(self.state.step, self.config.training.steps), self.config.mixture.update_every_steps
        )
        if not done:
            return self.state.used
        partial = self.plan(stage).counts(
            done * self.config.training.batch_sequences, len(self.state.used)
        )
        total: Int[np.ndarray, " leaves"] = self.state.used + partial
        return total

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def _update(self, stage: int) -> list[float] | None:
        """Measure what the mixer needs, unless the last step was listened to, and let it change the weights; return the scores."""
        begun = time.perf_counter()
        config, state = self.config, self.state
        if len(state.heard):
            found, state.heard = MixerMeasurement.from_flat(state.heard), np.zeros(0)
        else:
            found = observe(
                self.mixer.needs,
                self.engine,
                self.reference,
                config,
                self.inputs,
                stage,
                self.optimizer,
            )
        alignment, scored = found.alignment, "scores" in self.mixer.needs
        needed = alignment.scores if scored else alignment.losses
        if np.isinf(needed).any() or np.isnan(needed).all():
            raise UserError(
                f"step {state.step}: what was measured of the basis members is not finite; lower optimizer.learning_rate"
            )
        state.mixer = self.mixer.propose(state.mixer, self._seen(found))
        seconds = time.perf_counter() - begun
        state.scoring_seconds += seconds
        members = {
            name: getattr(alignment, name) for name in ("scores", "errors", "losses", "effective")
        }
        weights = {"alpha": state.mixer.alpha, "sampling": state.mixer.sampling}
        target = {"target_loss": found.target_loss, "target_gradient_norm": found.target_norm}
        self.metrics.write(
            "update",
            step=state.step,
            stage=stage,
            **members,
            **weights,
            **target,
            shares=_largest(alignment.shares),
            seconds=seconds,
        )
        return alignment.scores.tolist() if scored else None

    def _backward_heard(
        self, batch: Batch, drawn: BatchOrigin, plan: IntervalPlan
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A backward pass that scores the members on the sequences it is run on; what is heard waits for the next stage."""
        begun = time.perf_counter()
        config, us = self.config, self.team
        direction = direction_of(self.engine, config, self.inputs, plan.stage + 1, self.optimizer)
        self.state.scoring_seconds += time.perf_counter() - begun
        mine = drawn.leaves[process_slice(len(drawn.leaves), us.rank, us.world)]
        backend: SequenceBackend = (
            "finite_difference" if config.mixture.backend == "finite_difference" else "ghost"
        )
        share, scored = backward_and_score(self.engine, direction, batch, mine, backend)
        alignment = batch_alignment(us, self.inputs.basis.matrix, plan.shares, [scored])
        unknown = np.full_like(alignment.scores, np.nan)
        self.state.heard = MixerMeasurement(
            alignment, unknown, direction.loss, direction.norm
        ).flat()
        return share, scored.losses

    def _seen(self, found: MixerMeasurement | None) -> Observation:
        state, log = self.state, self.state.log
        unknown = np.full_like(state.mixer.sampling, np.nan)
        tokens = np.sum([row["sampling"] for row in log], axis=0) * (state.tokens / len(log))
        if found is None:
            return Observation(
                state.step, self.config.training.steps, tokens, unknown, unknown, unknown, unknown
            )
        of_members = found.alignment
        return Observation(
            state.step,
            self.config.training.steps,
            tokens,
            of_members.scores,
            of_members.errors,
            of_members.losses,
            found.reference_losses,
        )


def _largest(shares: Any, most: int = 10) -> dict[str, float]:
    """The tensors that carry most of a score."""
    return dict(sorted(shares.items(), key=lambda item: -abs(item[1]))[:most])
