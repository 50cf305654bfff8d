"""The mixture of a training loop that is not ours."""

import os
import time
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import Dataset

from data_catalog.errors import UserError
from data_catalog.format.run_files import write_run_checksums
from trainer.alignment.overhead import MeasurementCadence, updates_of
from trainer.alignment.trial import try_model
from trainer.begin import identity_of, with_cadence, write_record
from trainer.config import Model, Train
from trainer.distributed import Team
from trainer.evaluation.evaluate import HeldOutLoss
from trainer.inputs import Inputs
from trainer.library.dataset import MixtureDataset
from trainer.library.plain_model import measurable
from trainer.model.engine import build_engine, open_engine
from trainer.run_mixture import MixtureSources, RunMixture, append_weights
from trainer.sampling.plan import IntervalPlan
from trainer.state.checkpoint import Saved, State, restored_state, state_parts, write_log
from trainer.state.metrics import Metrics
from trainer.state.resume import position_settings, require_position
from trainer.state.trackers import Trackers
from trainer.target_shares import open_target_shares


class LoopMixture:
    """The mixture of a run whose steps are taken by a loop that is not ours.

    The run folder is that of `clustermix train`, without checkpoints and model. The weight log, the
    draws and the scores are the same too, for the same config, batches and parameters.
    """

    def __init__(self, config: Train, inputs: Inputs, cadence: MeasurementCadence) -> None:
        """Make the mixture of a new run; see `open_mixture`.

        Args:
            config: the config as requested.
            inputs: its inputs.
            cadence: the cadence of its measurements.
        """
        self.step = 0
        """Number of steps that the loop has taken."""
        self._requested, self._cadence, self._inputs = config, cadence, inputs
        self._identity = identity_of(config, inputs)
        self.config = with_cadence(config, cadence)
        """The config, with the cadence of the measurements."""
        self._sources = MixtureSources(self.config, inputs, inputs.bounds(self.config))
        self._mixer, weights = inputs.mixer(self.config)
        self._state = State(weights, np.zeros_like(inputs.corpus.sequences))
        append_weights(self.config, self._state, 0, None, writes=False)
        self._run: RunMixture | None = None
        self._plan: IntervalPlan | None = None
        self._started = 0.0

    @property
    def vocabulary(self) -> int:
        """Number of token ids of the catalog's tokenizer."""
        return self._inputs.vocabulary

    def dataset(
        self, batch_size: int | None = None, *, rank: int = 0, world: int = 1
    ) -> Dataset[dict[str, Tensor]]:
        """Return the sequences to train on, from the step that was reached.

        Args:
            batch_size: sequences that a DataLoader with workers puts into one batch. None: this
                process's share of a step.
            rank: number of this process.
            world: number of processes that each read their share of every step. It is 1 if the
                loader distributes the sequences itself, as that of Hugging Face does.

        Raises:
            UserError: The share of a step is not a multiple of `batch_size`.
        """
        sequences = self.config.training.batch_sequences
        share = sequences // world
        if sequences % world or share % (batch_size or share):
            raise UserError(
                f"training.batch_sequences: {sequences} cannot be divided into batches of "
                f"{batch_size or share} on {world} processes. Change one of them."
            )
        self._write_log()
        return MixtureDataset(
            self._sources,
            lambda: (self.step, self._state),
            batch_size=batch_size or share,
            rank=rank,
            world=world,
        )

    def begin(self, model: nn.Module) -> None:
        """Check that the model can be measured. The first `after_step` calls this otherwise.

        Args:
            model: the model on its device. It may be compiled or wrapped by
                DistributedDataParallel.

        Raises:
            UserError: The model cannot be measured.
        """
        config, inputs = self.config, self._inputs
        needs = self._mixer.needs
        team, engine, reference = _present_team(model), None, None
        if needs or config.evaluation.every_steps:
            engine = build_engine(measurable(model, inputs.vocabulary), config.training, team)
            try_model(engine, "model", config.mixture.backend if "scores" in needs else None)
        if "excess_losses" in needs:
            settings = Model(path=str(config.mixture.reference))
            reference = open_engine(settings, config, inputs.files, team)
        self._write_log()
        if team.is_leader:
            write_record(self._requested, inputs, self._cadence, self._identity, team.world)
        metrics = Metrics(
            config.folder / "metrics.jsonl",
            self._state.metrics_bytes,
            team.is_leader,
            Trackers(config, inputs.basis.names) if team.is_leader and config.log.to else None,
        )
        weakref.finalize(self, metrics.close)  # a loop may end without `finish`
        self._run = RunMixture(
            config=config,
            inputs=inputs,
            bounds=self._sources.bounds,
            team=team,
            engine=engine,
            reference=reference,
            optimizer=None,
            mixer=self._mixer,
            targets=open_target_shares(config, inputs, updates_of(config, self._cadence)),
            state=self._state,
            metrics=metrics,
        )
        self._started = time.perf_counter() - self._state.seconds
        if self._state.step == 0:
            self._run.begin_targets()

    def after_step(self, model: nn.Module, loss: float | None = None) -> None:
        """Count a step of the optimizer, and measure the model and change the weights if due.

        The last batch of an interval is scored before it is trained on, as in the trainer. The
        measurement is therefore made one step before the interval ends, and the next weights are
        known then, so that a loader can read one step ahead. Gradients are cleared when the model
        is measured. All processes call this together.

        Args:
            model: the model, as in `begin`.
            loss: mean loss of the step, for the record of the run.
        """
        run = self._begun(model)
        config, state = self.config, self._state
        self.step += 1
        if state.step < self.step:
            self._count_batch(run)
        if loss is not None and self.step % config.training.log_every_steps == 0:
            self.log_loss(loss)
        evaluates = config.evaluation.every_steps
        if evaluates and self.step % evaluates == 0 and self.step < config.training.steps:
            run.evaluate(run.inputs.validation_sets)
        if self.step >= config.training.steps or state.step > self.step:
            return
        plan = self._interval_plan(run)
        if run.scores_next_batch():
            self._score_next(run, plan)
        if run.interval_steps_left() == 1 and self.step + 1 < config.training.steps:
            self._count_batch(run)
            run.begin_interval(plan.interval + 1)

    def log_loss(self, loss: float) -> None:
        """Write the training loss of the last step, or the mean since the last call."""
        if self._run is not None:
            self._run.metrics.write(
                "train",
                step=self.step,
                loss=float(loss),
                tokens=self._state.tokens,
                seconds=time.perf_counter() - self._started,
                scoring_seconds=self._state.scoring_seconds,
            )

    def finish(self, model: nn.Module) -> list[HeldOutLoss]:
        """Evaluate the model, write the totals of the run, and return the held-out losses.

        All processes call this together, after the last step.
        """
        run = self._begun(model)
        if run.engine is None:
            engine = build_engine(
                measurable(model, self._inputs.vocabulary), self.config.training, run.team
            )
            run = RunMixture(**{**run.__dict__, "engine": engine})
        results = run.evaluate(self._inputs.final_sets)
        seconds = time.perf_counter() - self._started
        run.write_totals(seconds, sum(p.numel() for p in model.parameters()))
        run.metrics.close()
        if run.team.is_leader:
            write_run_checksums(self.config.folder)
        return results

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the data and the state of the mixer, for a checkpoint.

        It has plain values and tensors only. A run that loads it continues bit for bit.
        """
        if self._run is not None:
            self._state.metrics_bytes = self._run.metrics.size_bytes()
            self._state.seconds = time.perf_counter() - self._started
        parts = state_parts(self._state)
        return {
            "step": self.step,
            "position": self._position(),
            "about": dict(parts.about),
            "arrays": {name: torch.from_numpy(array) for name, array in parts.arrays.items()},
            "log": parts.log,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` returned.

        Datasets begin there as soon as they are iterated. The weight log in the run folder is
        shortened to that of the state.

        Raises:
            UserError: The state belongs to another catalog, or to settings that change the order
                of the data.
        """
        require_position(self.config.folder, state["position"], self._position())
        arrays = {name: tensor.numpy() for name, tensor in state["arrays"].items()}
        self._state = restored_state(Saved(state["about"], arrays, list(state["log"])))
        self.step = int(state["step"])
        if self._run is not None:
            self._run.metrics.close()
        self._run, self._plan = None, None
        self._write_log()

    def _begun(self, model: nn.Module) -> RunMixture:
        if self._run is None:
            self.begin(model)
        if self._run is None:
            raise ValueError("begin did not open the run")
        return self._run

    def _position(self) -> dict[str, Any]:
        return position_settings(self.config.model_dump(mode="json"), self._identity)

    def _write_log(self) -> None:
        """Write the weight log, which the workers of a DataLoader read."""
        if _process_rank() == 0:
            self.config.folder.mkdir(parents=True, exist_ok=True)
            write_log(self.config.folder / "weights.parquet", self._state.log)

    def _interval_plan(self, run: RunMixture) -> IntervalPlan:
        """Return the plan of the interval that `state.step` is in."""
        interval = self._state.step // self.config.mixture.update_every_steps
        if self._plan is None or self._plan.interval != interval:
            self._plan = run.interval_plan(interval)
        return self._plan

    def _count_batch(self, run: RunMixture) -> None:
        """Let the state take the step whose batch comes next."""
        state, plan = self._state, self._interval_plan(run)
        draws = plan.read(self._slice(plan))
        state.tokens += int(run.inputs.corpus.targets(draws.leaves, draws.rows).sum())
        if run.interval_steps_left() == 1:
            state.used = state.used + plan.counts(plan.draws)
        state.step += 1

    def _score_next(self, run: RunMixture, plan: IntervalPlan) -> None:
        """Score the batch of the next step, and discard its gradient."""
        begun, counted = time.perf_counter(), self._state.scoring_seconds
        draws = plan.read(self._slice(plan))
        own = plan.batch(0, self.config.training.batch_sequences, run.team.rank, run.team.world)
        batch = run.inputs.corpus.read(draws.leaves, draws.rows, own)
        run.measured.clear()
        run.score(batch, draws.leaves, plan, trains=False)
        run.measured.clear()
        self._state.scoring_seconds = counted + time.perf_counter() - begun

    def _slice(self, plan: IntervalPlan) -> slice:
        """Return the draws of the global batch that `state.step` is about."""
        done = self._state.step % self.config.mixture.update_every_steps
        return plan.batch(done, self.config.training.batch_sequences, 0, 1)


def _process_rank() -> int:
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def _present_team(model: nn.Module) -> Team:
    """Return the processes that train `model`, and the device that it is on."""
    device = next(model.parameters()).device
    if not dist.is_initialized():
        return Team(device=device)
    world = dist.get_world_size()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    return Team(dist.get_rank(), world, device, local, local_world)
