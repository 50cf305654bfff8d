"""What a run would draw, need and cost: everything that can be said before a model is built."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict

from trainer.alignment.overhead import scoring_share, within_budget
from trainer.config import ALIGNING, Train, Training
from trainer.inputs import Inputs, open_inputs
from trainer.mixers.choose import first_state, make_mixer
from trainer.model.memory import MemoryBytes, memory_need, model_shape
from trainer.sampling.bounds import DrawBounds
from trainer.sampling.plan import leaf_weights

MAXIMUM_LISTED_DOMAINS = 20  # of the domains that would be used up


class _PreviewPart(BaseModel):
    model_config = ConfigDict(frozen=True)


class MemberPreview(_PreviewPart):
    """A basis member. Epochs: how often the run draws what this member draws, on average over its draws."""

    name: str
    weight: float  # at the start
    tokens: int  # there to draw of the leaves that it reaches
    drawn_tokens: int  # by its initial weight
    epochs: float  # with the initial weights of all members
    epochs_alone: float  # if it had all the weight


class UsedUpDomain(_PreviewPart):
    domain: int
    tokens: int  # that may be drawn of it
    step: int  # at which the initial weights, drawn as they are, would have used it up


class Preview(_PreviewPart):
    catalog: Path
    out: Path
    steps: int
    tokens: int  # of the run, if no sequence is padded
    level: int
    reached_domains: int  # that any member draws from
    empty_domains: int  # without training sequences
    reached_leaves: int
    empty_leaves: int
    members: tuple[MemberPreview, ...]
    bounded_tokens: int | None  # most that may be drawn, all bounds counted in; None: no bounds
    used_up_domains: int  # that reach their bound before the end, by the initial weights
    used_up: tuple[UsedUpDomain, ...]  # the first of them
    update_every_steps: int
    basis_sequences: int
    target_sequences: int
    updates: int
    scoring_share: float  # what measuring adds to the work of training
    parameters: int | None  # None: a model on the hub is not looked up
    memory_bytes: MemoryBytes | None


def preview(config: Train) -> Preview:
    """Open what a run reads, and describe it.

    Raises:
        UserError: the run cannot be done: as `open_inputs`, and where its bounds leave less than it draws.
    """
    inputs = open_inputs(config)
    basis = inputs.basis
    state = first_state(
        make_mixer(config, basis.names, inputs.member_sizes()), basis.names, config.mixture.start
    )
    return describe_run(config, inputs, state.sampling, inputs.bounds(config))


def describe_run(
    config: Train, inputs: Inputs, weights: Float[np.ndarray, " basis"], bounds: DrawBounds | None
) -> Preview:
    """The preview of a run whose inputs are open.

    Args:
        weights: of the members at the start.
        bounds: of the whole run.
    """
    training, basis, sequences = config.training, inputs.basis, inputs.corpus.sequences
    level, draws = inputs.level, training.steps * training.batch_sequences
    tokens, mixed, reached = (
        inputs.corpus.tokens(),
        leaf_weights(weights, basis.matrix),
        basis.matrix.max(axis=0) > 0,
    )
    cadence = within_budget(config.mixture, len(basis.names), training.batch_sequences)
    used_up = _used_up(bounds, mixed, training) if bounds else []
    shape = model_shape(config.model, inputs.vocabulary)
    return Preview(
        catalog=config.catalog,
        out=config.out,
        steps=training.steps,
        tokens=draws * training.sequence_tokens,
        level=level,
        reached_domains=int(reached.reshape(level, -1).any(axis=1).sum()),
        empty_domains=int((sequences.reshape(level, -1).sum(axis=1) == 0).sum()),
        reached_leaves=int(reached.sum()),
        empty_leaves=int((sequences == 0).sum()),
        members=tuple(
            MemberPreview(
                name=name,
                weight=weight,
                tokens=round(float(tokens[row > 0].sum())),
                drawn_tokens=round(weight * draws * training.sequence_tokens),
                epochs=_epochs(row, mixed, sequences, draws),
                epochs_alone=_epochs(row, row, sequences, draws),
            )
            for name, weight, row in zip(basis.names, weights.tolist(), basis.matrix, strict=True)
        ),
        bounded_tokens=int(bounds.capacity().sum()) * training.sequence_tokens if bounds else None,
        used_up_domains=len(used_up),
        used_up=tuple(used_up[:MAXIMUM_LISTED_DOMAINS]),
        **cadence._asdict(),
        updates=_updates(config, cadence.update_every_steps),
        scoring_share=scoring_share(
            config.mixture, len(basis.names), training.batch_sequences, cadence
        ),
        parameters=shape.parameters if shape else None,
        memory_bytes=memory_need(
            shape, training, aligns=config.mixture.mixer in ALIGNING, device=_device()
        )
        if shape
        else None,
    )


def _device() -> Literal["cpu", "cuda"]:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _epochs(
    row: Float[np.ndarray, " leaves"],
    drawn: Float[np.ndarray, " leaves"],
    sequences: Int[np.ndarray, " leaves"],
    draws: int,
) -> float:
    """Epochs of each leaf if `drawn` are the run's shares, averaged over what `row` draws."""
    epochs = drawn / drawn.sum() * draws / np.maximum(sequences, 1)
    return float((row * epochs).sum() / row.sum())


def _used_up(
    bounds: DrawBounds, weights: Float[np.ndarray, " leaves"], training: Training
) -> list[UsedUpDomain]:
    """The domains that reach their bound before the end, the first one first."""
    after, most = bounds.used_up_after(weights), bounds.capacity()
    order = np.argsort(after, kind="stable")[: int(np.isfinite(after).sum())]
    return [
        UsedUpDomain(
            domain=domain,
            tokens=int(most[domain]) * training.sequence_tokens,
            step=int(after[domain] // training.batch_sequences),
        )
        for domain in order.tolist()
    ]


def _updates(config: Train, every: int) -> int:
    """Boundaries of stages after the first, and after the warm-up, at which a mixer that learns is asked."""
    first, last = (
        max(1, -(-config.mixture.warmup_steps // every)),
        (config.training.steps - 1) // every,
    )
    return max(last - first + 1, 0) if config.mixture.learns else 0
