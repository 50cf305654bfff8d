"""Forward and backward passes of a model, in micro-batches, on any number of processes."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from data_catalog.format.files import CatalogFiles
from data_catalog.format.tokens import IGNORED
from trainer.config import Model, Train, Training
from trainer.distributed import Team
from trainer.model.born_sharded import NotShardableError, Shards, fill
from trainer.model.experts import ExpertBiases
from trainer.model.head import Losses
from trainer.model.loss import TRIED_SEQUENCES, TRIED_TOKENS, LanguageLoss
from trainer.model.model import build_model
from trainer.model.parallel import (
    decoder_layers,
    gradients_summed,
    prepare_layers,
    replicate,
    shard,
    shard_count,
)
from trainer.model.precision import settled, use_precision
from trainer.sampling.batches import Batch

INTEGER_TYPES = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integer type by the number of bytes of an element."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Engine:
    """A model that is ready for training."""

    model: PreTrainedModel
    """The plain model. Its parameters may be sharded."""
    loss: nn.Module
    """A `LanguageLoss`, wrapped for several processes."""
    team: Team
    training: Training
    biases: ExpertBiases | None = None
    """Biases that balance the experts of the model. None: they are never changed."""
    checked: set[str] = field(default_factory=set)
    """Checks that were made in this process, and are made only once."""

    @property
    def sharded(self) -> bool:
        """True if each process holds a shard of every parameter and gradient (DTensors).

        All processes of a sharded engine must run every pass together.
        """
        return isinstance(self.loss, FSDPModule)

    @property
    def language(self) -> LanguageLoss:
        """The loss without the wrapper of several processes."""
        wrapped = isinstance(self.loss, DistributedDataParallel)
        language: LanguageLoss = self.loss.module if wrapped else self.loss  # type: ignore[assignment]
        return language

    @property
    def copied(self) -> bool:
        """True if other processes hold the same parameters as this one."""
        return self.team.world > shard_count(self.training, self.team)

    def backward(
        self, batch: Batch, *, shared: bool = True, regularised: bool = False
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " sequences"]]:
        """Add the gradient of the global batch's mean loss to `.grad`.

        Args:
            batch: this process's slice of the global batch, on any device.
            shared: whether to sum `.grad` over all processes. The sum includes earlier gradients,
                which must therefore be cleared first. If False, only this process's share is added,
                without communication. A sharded engine always sums: all processes call this
                together, those without sequences with an empty batch.
            regularised: whether the z-loss is added and a mixture of experts is balanced, for a
                training step. The gradient is then also that of the z-loss and of the auxiliary
                loss of experts, which are not part of the result.

        Returns:
            This process's share of the mean loss in nats per token, fp64, and the sum of nats of
            each of its sequences, fp32.
        """
        total, tokens = torch.zeros((), dtype=torch.float64, device=self.team.device), []
        for part in self.micro_batches(batch, shared=shared):
            losses = self.run(part, regularised)
            (losses.total / batch.total).backward()  # type: ignore[no-untyped-call]
            total += losses.sequences.double().sum() / batch.total
            tokens.append(losses.tokens)
        return total, batch.sums(self._whole(tokens, batch))

    def losses(self, batch: Batch) -> Float[Tensor, " sequences"]:
        """Return the sum of nats of each sequence, fp32.

        All processes of a sharded engine call this together.
        """
        return batch.sums(self.token_losses(batch))

    @torch.no_grad()
    def token_losses(self, batch: Batch) -> Float[Tensor, "sequences tokens"]:
        """Return the loss at each label in nats, fp32. It is 0 at masked labels.

        All processes of a sharded engine call this together.
        """
        parts = [self.run(part).tokens for part in self.micro_batches(batch, shared=False)]
        return self._whole(parts, batch)

    def _whole(
        self, parts: list[Float[Tensor, "_rows _tokens"]], batch: Batch
    ) -> Float[Tensor, "rows tokens"]:
        """Return the values of micro-batches at the places of the batch, without empty rows."""
        rows, width = batch.inputs.shape
        padded = [functional.pad(part, (0, width - part.shape[1])) for part in parts]
        return torch.cat([torch.zeros(0, width, device=self.team.device), *padded])[:rows]

    def packed(self, batch: Batch) -> Batch:
        """Return a batch of short sequences with little padding. The losses do not change.

        Rows hold several sequences if the model can separate them. Runs that do not separate
        documents, as those of earlier versions, keep their batches, and so their rounding.
        """
        if not self.training.separate_documents:
            return batch
        return batch.packed(together=self.language.separates is True)

    def run(self, part: Batch, regularised: bool = False) -> Losses:
        """Return the losses of a micro-batch; see `LanguageLoss.forward`."""
        losses: Losses = self.loss(part.inputs, part.labels, regularised, part.owners)
        return losses

    def micro_batches(self, batch: Batch, *, shared: bool) -> Iterator[Batch]:
        """Yield the batch in micro-batches on the device, each cut behind its last label.

        The caller runs one forward and one backward pass on each. If `shared`, gradients are summed
        over the processes in the backward pass of the last one (see `backward`). If another process
        has more micro-batches, fully masked ones of a single sequence follow, because collectives
        need all processes.
        """
        parts = batch.split(self.training.micro_batch_sequences)
        wanted = (
            self.team.maximum(len(parts)) if self.sharded else int(shared and self.team.world > 1)
        )
        padding = batch.inputs.new_zeros(1, batch.inputs.shape[1])
        parts += [Batch(padding, torch.full_like(padding, IGNORED), 0)] * (wanted - len(parts))
        for number, part in enumerate(parts, start=1):
            with gradients_summed(
                self.loss, last=number == len(parts) and (shared or self.sharded)
            ):
                # Other shapes would be compiled again.
                yield (part if self.training.compile else part.cut()).to(self.team.device)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the trainable parameters by name, tied ones once."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def clear(self) -> None:
        """Remove all gradients, and the loads of experts."""
        for parameter in self.model.parameters():
            parameter.grad = None
        if self.biases is not None:
            self.biases.clear()

    def balance(self) -> None:
        """Change the biases of experts after a training step. All processes call this together."""
        if self.biases is not None:
            self.biases.update(self.team)

    def clip(self, maximum_norm: float) -> Float[Tensor, ""]:
        """Scale a gradient longer than `maximum_norm` to that norm, and return its norm before.

        The norm stays on the device, so that the host does not wait for it here.
        """
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()  # over the shards of all processes
        nn.utils.clip_grads_with_norm_(parameters, maximum_norm, norm)
        return norm

    @torch.no_grad()
    def digest(self) -> str:
        """Return a hash of the weights. All processes call this together.

        The bits of each tensor's elements are summed as integers, so that the result depends
        neither on the order of the sum nor on the sharding.
        """
        parameters = list(self.model.parameters())
        local_tensors = [p.to_local() if isinstance(p, DTensor) else p for p in parameters]
        sums = torch.stack(
            [
                p.contiguous().view(INTEGER_TYPES[p.element_size()]).sum(dtype=torch.int64)
                for p in local_tensors
            ]
        )
        if isinstance(parameters[0], DTensor):
            dist.all_reduce(sums, group=parameters[0].device_mesh.get_group("shard"))
        return hashlib.sha256(sums.cpu().numpy().tobytes()).hexdigest()[:16]


def build_engine(
    model: PreTrainedModel, training: Training, team: Team, shards: Shards | None = None
) -> Engine:
    """Move `model` to the team's device and wrap it as `training` says, in place.

    Build the optimizer after this, because sharding changes the parameters. With one process
    `training.parallel` has no effect.

    Args:
        model: the model.
        training: the training settings.
        team: the processes of the run.
        shards: the rows of the parameters, if `model` was built with them.
    """
    training = settled(training, team.device.type)
    use_precision(training.precision, team.device.type)
    rows = shards.release(model) if shards else None
    if rows is None:
        model.to(team.device)  # type: ignore[arg-type]
    layers = decoder_layers(model)
    prepare_layers(layers, compiled=training.compile, checkpointed=training.checkpoint_activations)
    # The catalog's, which `build_model` has written there.
    end_of_text = model.config.eos_token_id if training.separate_documents else None
    loss: nn.Module = (
        language := LanguageLoss(model, training.precision, end_of_text, training.z_loss)
    )
    if shard_count(training, team) > 1:
        shard(loss, layers, training, team)
        if rows is not None:
            fill(loss, rows, model)
    elif team.world > 1:
        loss = replicate(loss, team)
    engine = Engine(model, loss, team, training, language.biases)
    _try_head(engine)
    return engine


def _try_head(engine: Engine) -> None:
    """Let the loss try the model's output layer, which it does in its first pass."""
    inputs = torch.arange(TRIED_SEQUENCES * TRIED_TOKENS).view(TRIED_SEQUENCES, TRIED_TOKENS)
    inputs %= engine.model.config.get_text_config().vocab_size
    # Eager, so that this length of a sequence is not compiled.
    with torch.compiler.set_stance("force_eager"):
        engine.losses(Batch(inputs, inputs, inputs.numel()))


def open_engine(model: Model, config: Train, files: CatalogFiles, team: Team) -> Engine:
    """Build `model` for the tokens of a catalog and prepare it for training.

    Args:
        model: the model's settings: those of `config`, or of another model such as a reference.
        config: the config of the run.
        files: the open catalog.
        team: the processes of the run.

    Raises:
        UserError: The model cannot be built; see `build_model`.
    """
    training, vocabulary = config.training, files.manifest.tokenizer.vocabulary
    build = partial(
        build_model, model, vocabulary, files.end_of_text, training.sequence_tokens, config.seed
    )
    if (count := shard_count(training, team)) > 1:
        shards = Shards(team.rank % count, count)
        try:
            return _warned(build_engine(build(shards), training, team, shards), model)
        except NotShardableError as error:
            logger.warning("Every process builds the whole model first, because %s.", error)
    return _warned(build_engine(build(), training, team), model)


def _warned(engine: Engine, model: Model) -> Engine:
    """Return the engine, with a warning if its model cannot separate documents as requested."""
    wanted = engine.training.separate_documents and engine.team.is_leader
    if wanted and not engine.language.separates:
        logger.warning(
            "model.path %s: The model cannot separate the documents of a sequence. Its tokens "
            "depend on all earlier ones.",
            model.path,
        )
    return engine
