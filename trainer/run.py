"""An open training run, with a method for each of its actions. `loop.py` calls them in order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trainer.evaluation.evaluate import HeldOutLoss
from trainer.inputs import refill_catalog
from trainer.model.engine import Engine
from trainer.model.optimizer import learning_rate_at, set_learning_rate
from trainer.run_mixture import RunMixture
from trainer.sampling.batches import Batch
from trainer.sampling.plan import IntervalPlan
from trainer.state.checkpoint_writer import CheckpointWriter
from trainer.state.export import context_tokens, export_model
from trainer.state.metrics import Speed
from trainer.state.model_card import model_card
from trainer.state.numeric_checks import BatchOrigin, check_finite, check_replicas, outlier
from trainer.state.stored_run import StoredRun, finish_run


@dataclass(frozen=True)
class Run(RunMixture):
    """Everything that an open run consists of."""

    engine: Engine
    optimizer: torch.optim.Optimizer
    identity: dict[str, str]
    """Fingerprints of the config, the catalog and the tokenizer."""
    writer: CheckpointWriter
    speed: Speed
    stored: StoredRun | None = None
    """The run in a store, if `config.out` is a URL."""

    def begin_interval(self, interval: int) -> None:
        """Compare the copies of the model, and choose and log the weights of the interval."""
        if self.engine.copied:
            check_replicas(self.engine.digest(), self.team)
        super().begin_interval(interval)

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
            share, nats = self.score(batch, origin.leaves, scored_plan)
        device_norm = self.engine.clip(config.optimizer.clip)
        sums = team.sum(torch.stack([share, share.new_tensor(float(stop))]))
        # The only place of a step where the host reads numbers of the device.
        loss, stops, norm = torch.cat([sums, device_norm.to(sums)[None]]).tolist()
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
        results = self.evaluate(self.inputs.final_sets)
        parameters = sum(p.numel() for p in self.engine.model.parameters())
        self.write_totals(self.speed.seconds(), parameters)
        self._export("model", results)
        self.metrics.close()
        if self.team.is_leader:
            finish_run(self.config.folder, self.stored)
        self.team.wait()

    def _export(self, name: str, results: Sequence[HeldOutLoss]) -> None:
        config, inputs, model = self.config, self.inputs, self.engine.model
        refill_catalog(config, inputs.files)
        context = context_tokens(model, config.training.sequence_tokens)
        card = model_card(config, inputs, model, self.state, results, context)
        export_model(config.folder / name, model, inputs.files, context, card, self.team)

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
