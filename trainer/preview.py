"""Preview of a run: its draws, memory and costs, computed without building a model."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict

from data_catalog.settings import FolderPath
from trainer.alignment.overhead import cadence_of, scoring_share, updates_of
from trainer.config import Train, Training
from trainer.inputs import Inputs, open_inputs
from trainer.mixers.prior import mean_epochs, wanted_shares
from trainer.mixture_config import ALIGNING
from trainer.model.footprint import Footprint, footprint
from trainer.model.memory import MemoryBytes, empty_model, memory_need
from trainer.model.precision import settled
from trainer.sampling.bounds import DrawBounds
from trainer.sampling.plan import leaf_weights

MAXIMUM_LISTED_DOMAINS = 20


class _PreviewPart(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class MemberPreview(_PreviewPart):
    """A basis member at the initial weights.

    Epochs are the average number of times that the run draws the member's sequences.
    """

    name: str
    weight: float
    """Initial weight."""
    tokens: int
    """Available tokens in the leaves that the member reaches."""
    drawn_tokens: int
    """Tokens drawn from it at its initial weight, if no sequence is padded."""
    epochs: float
    """Epochs at the initial weights of all members."""
    epochs_alone: float
    """Epochs if the member had all the weight."""


class PriorPreview(_PreviewPart):
    """The prior of the mixer `dga`, and how often it repeats the target's domains.

    Epochs are averages over the target's own distribution.
    """

    target_share: float
    """Share of the target's own distribution. The rest is natural."""
    epochs: float
    """Epochs if the run drew from the prior throughout."""
    undiscounted_epochs: float
    """Epochs without the discount of repeated data."""


class UsedUpDomain(_PreviewPart):
    """A domain that the initial weights would use up before the end of the run."""

    domain: int
    tokens: int
    """Maximum number of tokens that can be drawn from it."""
    step: int
    """Step at which it would be used up if the bounds did not slow it down."""


class Preview(_PreviewPart):
    """Description of a run before it starts."""

    catalog: FolderPath
    out: FolderPath
    steps: int
    tokens: int
    """Tokens of the run if no sequence is padded."""
    padding: float
    """Share of these places in sequences that is padding, at the initial weights."""
    level: int
    """Number of domains."""
    reached_domains: int
    """Domains that at least one member draws from."""
    empty_domains: int
    """Domains without training sequences."""
    reached_leaves: int
    empty_leaves: int
    members: tuple[MemberPreview, ...]
    prior: PriorPreview | None
    """None: not the mixer `dga`, or all members have the same weight in its prior."""
    bounded_tokens: int | None
    """Maximum number of tokens that can be drawn within all bounds. None: no bounds."""
    used_up_domains: int
    """Number of domains that the initial weights would use up before the end."""
    used_up: tuple[UsedUpDomain, ...]
    """The first of them."""
    update_every_steps: int
    basis_sequences: int
    target_sequences: int
    updates: int
    """Number of weight updates."""
    measures_batches: bool
    """Measurements are made on training batches, instead of new sequences of each member."""
    scoring_share: float
    """Work of measuring for the mixer, as a share of the training work."""
    parameters: int | None
    """Number of model parameters. None for a model on the hub, which is not looked up."""
    memory_bytes: MemoryBytes | None
    """None: as above, or the model cannot be run without its weights."""
    footprint: Footprint | None
    """State and checkpoints on the processes of the run. None for a model on the hub."""
    fetched_bytes: int | None
    """Size of the training sequences that are fetched from the store, each once, at the initial
    weights. None: the catalog is on this machine."""
    cache_bytes: int | None
    """Maximum size of the sequences that each process keeps. None: as above."""


def preview(config: Train, processes: int = 1) -> Preview:
    """Open the inputs of a run on a number of processes, and describe it.

    Raises:
        UserError: The inputs cannot be opened, or the bounds allow fewer draws than the run needs.
    """
    inputs = open_inputs(config)
    _, state = inputs.mixer(config)
    return describe_run(config, inputs, state.sampling, inputs.bounds(config), processes)


def describe_run(
    config: Train,
    inputs: Inputs,
    weights: Float[np.ndarray, " basis"],
    bounds: DrawBounds | None,
    processes: int,
) -> Preview:
    """Return the preview of a run whose inputs are open.

    Args:
        config: the config of the run.
        inputs: its inputs.
        weights: initial weights of the basis members.
        bounds: bounds of the whole run.
        processes: number of processes.
    """
    training, basis, sequences = config.training, inputs.basis, inputs.corpus.sequences
    level, draws = inputs.level, training.draws
    tokens, mixed, reached = (
        inputs.corpus.tokens(),
        inputs.drawn(leaf_weights(weights, basis.matrix), config),
        basis.matrix.max(axis=0) > 0,
    )
    filled = tokens / np.maximum(sequences, 1)
    cadence = cadence_of(config, len(basis.names))
    used_up = _used_up(bounds, mixed, training) if bounds else []
    model = empty_model(config.model, inputs.vocabulary, training.sequence_tokens, _device())
    aligns = config.mixture.mixer in ALIGNING
    needs = footprint(model, config, processes, aligns=aligns) if model else None
    return Preview(
        catalog=config.catalog,
        out=config.out,
        steps=training.steps,
        tokens=draws * training.sequence_tokens,
        padding=1.0 - float((mixed / mixed.sum()) @ filled) / training.sequence_tokens,
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
                epochs=mean_epochs(row, mixed, sequences, draws),
                epochs_alone=mean_epochs(row, inputs.fill.draws(row), sequences, draws),
            )
            for name, weight, row in zip(basis.names, weights.tolist(), basis.matrix, strict=True)
        ),
        prior=_prior(config, inputs) if config.mixture.has_target_prior else None,
        bounded_tokens=int(bounds.capacity().sum()) * training.sequence_tokens if bounds else None,
        used_up_domains=len(used_up),
        used_up=tuple(used_up[:MAXIMUM_LISTED_DOMAINS]),
        **cadence._asdict(),
        updates=updates_of(config, cadence),
        measures_batches=config.mixture.measure_on == "batch",
        scoring_share=scoring_share(
            config.mixture, len(basis.names), training.batch_sequences, cadence
        ),
        parameters=model.num_parameters() if model else None,
        memory_bytes=memory_need(model, settled(training, _device()), aligns=aligns)
        if model
        else None,
        footprint=needs,
        fetched_bytes=_fetched_bytes(inputs, mixed, draws) if inputs.files.remote_tokens else None,
        cache_bytes=config.data.cache_bytes if inputs.files.remote_tokens else None,
    )


def _fetched_bytes(inputs: Inputs, weights: Float[np.ndarray, " leaves"], draws: int) -> int:
    """Return the size of the distinct sequences that a run draws with these weights."""
    sequences = float(np.minimum(weights / weights.sum() * draws, inputs.corpus.sequences).sum())
    token_bytes = 2 if inputs.vocabulary <= 2**16 else 4  # as in the token files
    return round(sequences * (inputs.corpus.length + 1) * token_bytes)


def _device() -> Literal["cpu", "cuda"]:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _prior(config: Train, inputs: Inputs) -> PriorPreview:
    draws, sequences = config.training.draws, inputs.corpus.sequences
    targets = config.mixture.target_shares(config.target)
    share = inputs.prior_share(config, targets)
    target = inputs.mixed(config, wanted_shares(targets, 1.0))
    mixed = inputs.mixed(config, wanted_shares(targets, share))
    return PriorPreview(
        target_share=share,
        epochs=mean_epochs(target, inputs.drawn(mixed, config), sequences, draws),
        undiscounted_epochs=mean_epochs(target, inputs.fill.draws(mixed), sequences, draws),
    )


def _used_up(
    bounds: DrawBounds, weights: Float[np.ndarray, " leaves"], training: Training
) -> list[UsedUpDomain]:
    """Return the domains that reach their bound before the end, in order of time."""
    after, capacity = bounds.used_up_after(weights), bounds.capacity()
    order = np.argsort(after, kind="stable")[: int(np.isfinite(after).sum())]
    return [
        UsedUpDomain(
            domain=domain,
            tokens=int(capacity[domain]) * training.sequence_tokens,
            step=int(after[domain] // training.batch_sequences),
        )
        for domain in order.tolist()
    ]
