"""One run and its verbs: begin, plan a stage, take a step, measure, save, finish. `loop.py` says when each happens."""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int

from data_catalog.errors import UserError
from data_catalog.manifest import write_json
from trainer.alignment import Alignment
from trainer.alignment.direction import target_direction
from trainer.alignment.exact import exact_alignment
from trainer.alignment.probes import member_probes, target_probe
from trainer.checkpoint import State, check_identity, checkpoints, load_checkpoint, save_checkpoint, write_log
from trainer.config import Train
from trainer.data import Batch
from trainer.distributed import Team
from trainer.engine import Engine, build_engine
from trainer.evaluate import EvaluationSet, mean_loss
from trainer.export import export_model, repeats, write_usage
from trainer.inputs import Inputs, open_inputs
from trainer.metrics import Metrics
from trainer.mixers import Mixer, Observation
from trainer.mixers.dga import Dga
from trainer.mixers.static import Static
from trainer.model import build_model
from trainer.optimizer import build_optimizer, learning_rate, set_learning_rate
from trainer.plan import StagePlan, draw_stage, leaf_weights


@dataclass(frozen=True)
class Run:
    config: Train
    team: Team
    inputs: Inputs
    engine: Engine
    optimizer: torch.optim.Optimizer
    mixer: Mixer
    state: State
    metrics: Metrics
    started: float  # on the clock of time.perf_counter, less the seconds of earlier segments

    def append_weights(self, stage: int, scores: list[float] | None) -> None:
        """Add the weights of a stage that begins now to the log."""
        state = self.state
        row = {
            "stage": stage,
            "first_sequence": state.step * self.config.training.batch_sequences,
            "alpha": state.mixer.alpha.tolist(),
            "sampling": state.mixer.sampling.tolist(),
            "scores": scores,
        }
        state.log.append(row)
        if self.team.leads:
            write_log(self.config.out / "weights.parquet", state.log)

    def plan(self, stage: int) -> StagePlan:
        """Draw a stage from the weights that the log has for it."""
        weights = leaf_weights(np.array(self.state.log[stage]["sampling"]), self.inputs.basis.matrix)
        draws = self.config.mixture.update_every_steps * self.config.training.batch_sequences
        return draw_stage(stage, weights, self.inputs.corpus.sequences, self.state.used, draws=draws, seed=self.config.seed)

    def update(self, stage: int) -> list[float]:
        """Measure every basis member's alignment with the target and let the mixer change the weights; return the scores."""
        begun = time.perf_counter()
        config, state = self.config, self.state
        direction = target_direction(self.engine, target_probe(self.engine, config, self.inputs.align, stage))
        alignment = exact_alignment(self.engine, direction, member_probes(config, self.inputs, stage), config.mixture.scores)
        scores: list[float] = alignment.scores.tolist()
        if not np.isfinite(alignment.scores).all():
            raise UserError(f"step {state.step}: an alignment score is not finite; lower optimizer.learning_rate")
        state.mixer = self.mixer.propose(state.mixer, self.observation(alignment))
        seconds = time.perf_counter() - begun
        state.scoring_seconds += seconds
        weights = {"alpha": state.mixer.alpha.tolist(), "sampling": state.mixer.sampling.tolist()}
        loss = {"target_loss": direction.loss, "target_gradient_norm": direction.norm}
        self.metrics.write("update", step=state.step, stage=stage, scores=scores, **weights, **loss, seconds=seconds)
        return scores

    def observation(self, alignment: Alignment) -> Observation:
        state = self.state
        tokens = np.sum([row["sampling"] for row in state.log], axis=0) * (state.tokens / len(state.log))
        nothing = np.full_like(alignment.scores, np.nan)
        return Observation(state.step, self.config.training.steps, tokens, alignment.scores, alignment.errors, alignment.losses, nothing)

    def take_step(self, batch: Batch, stop: bool) -> bool:
        """One optimizer step on the global batch of which `batch` is this process's part.

        Returns:
            Whether any process was asked to stop: all learn it at the same step.

        Raises:
            UserError: the gradient is not finite.
        """
        config, state, us = self.config, self.state, self.team
        rate = learning_rate(config.optimizer, state.step, config.training.steps)
        set_learning_rate(self.optimizer, rate)
        self.engine.clear()
        share, _ = self.engine.backward(batch)
        norm = self.engine.clip(config.optimizer.clip)
        if not math.isfinite(norm):
            raise UserError(
                f"step {state.step}: the gradient is not finite; lower optimizer.learning_rate and start in another out "
                f"({len(checkpoints(config.out))} checkpoints are kept in {config.out})"
            )
        self.optimizer.step()
        sums: list[float] = us.sum(torch.stack([share, share.new_tensor(float(stop))])).tolist()
        loss, stops = sums
        state.step += 1
        state.tokens += batch.total
        if state.step % config.training.log_every_steps == 0:
            digests = {"batch": us.gather(batch.digest())} if config.training.log_every_steps == 1 else {}
            self.metrics.write(
                "train",
                step=state.step,
                loss=loss,
                lr=rate,
                tokens=state.tokens,
                seconds=self.seconds(),
                data_seconds=state.data_seconds,
                scoring_seconds=state.scoring_seconds,
                gradient_norm=norm,
                **digests,
            )
        return stops > 0

    def evaluate(self, sets: tuple[EvaluationSet, ...]) -> None:
        for chosen in sets:
            loss = mean_loss(self.engine, chosen)
            where = {"step": self.state.step, "tokens": self.state.tokens, "set": chosen.name}
            self.metrics.write("eval", **where, loss=loss, sequences=len(chosen.leaves))

    def save(self) -> None:
        self.state.seconds, self.state.metrics_bytes = self.seconds(), self.metrics.size_bytes()
        if self.team.leads:
            identity = _identity(self.config, self.inputs)
            save_checkpoint(
                self.config.out, self.state, self.engine.model, self.optimizer, identity=identity, keep=self.config.checkpoint.keep
            )

    def finish(self) -> None:
        """Write the totals and the model; the model comes last, and says that the run is finished."""
        state, sequences, used = self.state, self.inputs.corpus.sequences, self.drawn()
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
            write_usage(self.config.out / "usage.parquet", used, sequences)
            export_model(self.config.out, self.engine.model, self.config.catalog)
        self.team.wait()

    def drawn(self) -> Int[np.ndarray, " leaves"]:
        """Draws of each leaf so far, those of an unfinished stage included."""
        stage, done = divmod(self.state.step, self.config.mixture.update_every_steps)
        if not done:
            return self.state.used
        partial = self.plan(stage).counts(done * self.config.training.batch_sequences, len(self.state.used))
        total: Int[np.ndarray, " leaves"] = self.state.used + partial
        return total

    def seconds(self) -> float:
        return time.perf_counter() - self.started


def begin(config: Train, team: Team) -> Run | None:
    """Open the catalog, build the model, and take up the last checkpoint in `config.out` if there is one.

    Returns:
        None if the run is finished already.

    Raises:
        UserError: the config, the catalog and the run folder do not fit each other.
    """
    inputs = open_inputs(config)
    identity = _identity(config, inputs)
    check_identity(config.out, identity)
    if (config.out / "model").is_dir():
        return None
    model = build_model(config.model, inputs.vocabulary, inputs.end_of_text, config.training.sequence_tokens, config.seed)
    engine = build_engine(model, config.training, team)
    optimizer = build_optimizer(model, config.optimizer)
    found = checkpoints(config.out)
    mixer: Mixer = Dga(eta=config.mixture.eta or 1.5, ema=config.mixture.ema) if config.mixture.mixer == "dga" else Static()
    fresh = State(mixer.start(len(inputs.basis.names)), np.zeros_like(inputs.corpus.sequences))
    state = load_checkpoint(found[-1], model, optimizer) if found else fresh
    team.wait()  # every process has read the folder before the first one writes to it
    if team.leads:
        settings = {"config": config, "basis": inputs.basis.names, "level": config.mixture.level or len(inputs.corpus.sequences)}
        sizes = {"sequences": inputs.corpus.total, "world": team.world}
        write_json(config.out / "config.json", {**settings, **sizes, **identity})
    metrics = Metrics(config.out / "metrics.jsonl", state.metrics_bytes, team.leads)
    return Run(config, team, inputs, engine, optimizer, mixer, state, metrics, time.perf_counter() - state.seconds)


def _identity(config: Train, inputs: Inputs) -> dict[str, str]:
    return {"fingerprint": config.fingerprint(), "catalog": inputs.catalog}
