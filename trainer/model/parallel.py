"""Training on several processes, with a copy of the model (DDP) or a shard (FSDP2) on each.

With `hsdp`, groups of processes hold a copy of the model each, sharded over the group. Gradients
are summed over the shards of a group, and then over the groups.

Gradients are summed instead of averaged, because the loss of a batch is divided by the number of
labels of the global batch. The decoder layers are compiled, checkpointed and sharded one by one.
"""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from data_catalog.errors import UserError
from trainer.config import Training
from trainer.distributed import Team

# Replicas are never freed. A replica holds the last reference to gloo's process group, whose
# destructor waits for gloo's threads while it holds Python's global lock. A thread that is
# releasing its last tensor waits for the same lock. `trainer.__main__` ends the process without
# destructors.
_LIVE_REPLICAS: list[DistributedDataParallel] = []


def replicate(loss: nn.Module, team: Team) -> DistributedDataParallel:
    """Return `loss` with a copy of the model on every process.

    Gradients are summed in buckets while the backward pass is running. DDP's options are chosen for
    these reasons:

    * `find_unused_parameters`: A parameter that no token uses, such as that of an expert, has
      gradient zero instead of stopping the run. The option also fixes the order of the buckets.
      Otherwise DDP would rebuild them after the first step, with a collective in the next forward
      pass, which processes that score different members do not run together. A resumed run would
      also sum the gradients of its first step in another order than an uninterrupted run.
    * No `gradient_as_bucket_view`: The next backward pass would overwrite `.grad`, but the target's
      gradient is kept for longer.
    * No broadcast of buffers, because they are constants.
    """
    devices = [team.device] if team.device.type == "cuda" else None
    with warnings.catch_warnings():
        # torch 2.13 renames broadcast_buffers.
        warnings.simplefilter("ignore", FutureWarning)
        replica = DistributedDataParallel(
            loss, device_ids=devices, find_unused_parameters=True, broadcast_buffers=False
        )
    replica.register_comm_hook(None, _sum)
    _LIVE_REPLICAS.append(replica)
    return replica


def _sum(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """Sum a bucket. The default all-reduce of DDP also divides by the number of processes."""
    summed: torch.futures.Future[list[Tensor]] = dist.all_reduce(
        bucket.buffer(), async_op=True
    ).get_future()
    return summed.then(lambda done: done.value()[0])


def shard_count(training: Training, team: Team) -> int:
    """Return the number of shards of a copy of the model. It is 1 if the model is not sharded.

    Process r holds shard `r % shard_count`.

    Raises:
        UserError: The processes cannot be divided into groups of this size.
    """
    if training.parallel == "ddp":
        return 1
    if training.parallel == "fsdp2":
        return team.world
    count = min(training.shard_processes or team.local_world, team.world)
    if team.world % count:
        raise UserError(
            f"training.shard_processes {count}: {team.world} processes cannot be divided into "
            "groups of this size. Change it, or the number of processes."
        )
    return count


def shard(
    loss: nn.Module, layers: Iterable[nn.Module], training: Training, team: Team
) -> FSDPModule:
    """Shard the parameters of every layer, in place, and those outside of the layers as one group.

    The last group holds the embeddings, the final norm and the head, so that tied parameters are
    sharded together. With bfloat16 the gathered parameters are bfloat16. Shards, sums of gradients
    and optimizer states are always fp32.
    """
    mesh = _mesh(shard_count(training, team), team)
    policy = (
        MixedPrecisionPolicy(torch.bfloat16, torch.float32)
        if training.precision == "bfloat16"
        else MixedPrecisionPolicy()
    )
    groups: list[Any] = [
        fully_shard(module, mesh=mesh, mp_policy=policy) for module in (*layers, loss)
    ]
    for group in groups:
        group.set_gradient_divide_factor(1.0)
        group.set_force_sum_reduction_for_comms(True)  # Gloo does not support a scaled sum.
    # The root's parameters stay gathered for the backward pass. If there is none, they are released
    # here. Otherwise the next forward pass would not use a changed shard.
    loss.register_forward_hook(
        lambda root, _, __: None if torch.is_grad_enabled() else root.reshard()
    )
    root: FSDPModule = groups[-1]
    return root


def _mesh(shards: int, team: Team) -> DeviceMesh:
    """Return the processes by copy and shard, or by shard if there is one copy."""
    if shards == team.world:
        return init_device_mesh(team.device.type, (shards,), mesh_dim_names=("shard",))
    shape = (team.world // shards, shards)
    return init_device_mesh(team.device.type, shape, mesh_dim_names=("copy", "shard"))


@contextmanager
def gradients_summed(loss: nn.Module, last: bool) -> Iterator[None]:
    """Return the context of one micro-batch's forward and backward pass.

    Gradients are summed over the processes in the `last` micro-batch.
    """
    if isinstance(loss, FSDPModule):
        loss.set_requires_gradient_sync(last)
        yield
    elif isinstance(loss, DistributedDataParallel) and not last:
        with loss.no_sync():
            yield
    else:
        yield


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """Return the repeated blocks of a transformer: its largest list of modules."""
    lists: list[nn.ModuleList] = [
        module for module in model.modules() if isinstance(module, nn.ModuleList)
    ]
    return list(
        max(lists, key=lambda blocks: sum(p.numel() for p in blocks.parameters()), default=())
    )


def prepare_layers(layers: Iterable[nn.Module], *, compiled: bool, checkpointed: bool) -> None:
    """Compile each layer's forward pass, or make it recompute its activations, in place.

    Modules and names do not change. One compilation serves all layers, and gradients can be summed
    while the backward pass is running. The checkpointing of transformers is not used, because it
    needs training mode, which would turn dropout on.
    """
    for layer in layers:
        if compiled:
            layer.forward = torch.compile(layer.forward)
        if checkpointed:  # No random state is preserved, because dropout is off.
            layer.forward = partial(
                checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
            )
