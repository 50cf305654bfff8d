"""Training on several processes, with a copy of the model (DDP) or a shard of it (FSDP2) on each.

Both sum gradients instead of averaging them, because a batch's loss is divided by the labels of the
global batch. The decoder layers are compiled, checkpointed and sharded one by one.
"""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from trainer.distributed import Team

# Never freed: the last reference to gloo's process group is in a replica, its end waits for gloo's threads while it holds Python's lock,
# and a thread that is just dropping its last tensor waits for that lock. See `trainer.__main__` for how a process ends instead.
_KEPT: list[DistributedDataParallel] = []


def replicate(loss: nn.Module, team: Team) -> DistributedDataParallel:
    """A copy on every process; gradients travel in buckets while the backward pass goes on.

    * `find_unused_parameters`: a parameter that no token reached (an expert) counts as zero instead of stopping the run. It also
      keeps the buckets as they are: DDP would otherwise arrange them anew after the first step, with a collective in the next
      forward pass, which processes that score different members do not run together; and a resumed run would add up its first
      step in another order than the run that was never stopped.
    * no `gradient_as_bucket_view`: `.grad` would be overwritten by the next backward pass, and the target's gradient is kept for longer.
    * no broadcast of buffers: they are constants.
    """
    devices = [team.device] if team.device.type == "cuda" else None
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # that broadcast_buffers has another name from torch 2.13 on
        replica = DistributedDataParallel(
            loss, device_ids=devices, find_unused_parameters=True, broadcast_buffers=False
        )
    replica.register_comm_hook(None, _sum)
    _KEPT.append(replica)
    return replica


def _sum(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """Sum a bucket. DDP's own all-reduce would also divide by the number of processes."""
    summed: torch.futures.Future[list[Tensor]] = dist.all_reduce(
        bucket.buffer(), async_op=True
    ).get_future()
    return summed.then(lambda done: done.value()[0])


def shard(loss: nn.Module, layers: Iterable[nn.Module], precision: str, team: Team) -> FSDPModule:
    """Shard every layer's parameters, and the rest (embeddings, final norm, head; tied ones together) as one more group, in place.

    With bfloat16 the gathered parameters are bfloat16; shards, gradient sums and optimizer states stay fp32.
    """
    mesh = init_device_mesh(team.device.type, (team.world,))
    policy = (
        MixedPrecisionPolicy(torch.bfloat16, torch.float32)
        if precision == "bfloat16"
        else MixedPrecisionPolicy()
    )
    groups: list[Any] = [
        fully_shard(module, mesh=mesh, mp_policy=policy) for module in (*layers, loss)
    ]
    for group in groups:
        group.set_gradient_divide_factor(1.0)
        group.set_force_sum_reduction_for_comms(True)  # gloo has no scaled sum
    # The root's parameters stay gathered for the backward pass. Without one, a changed shard would not be seen by the next forward pass.
    loss.register_forward_hook(
        lambda root, _, __: None if torch.is_grad_enabled() else root.reshard()
    )
    root: FSDPModule = groups[-1]
    return root


@contextmanager
def gradients_summed(loss: nn.Module, last: bool) -> Iterator[None]:
    """Run one micro-batch's forward and backward pass inside; gradients are summed over the processes after the `last` one."""
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
    """Compile each layer's forward pass, or keep nothing of it but its input; in place, so that modules and names stay what they are.

    Layer by layer: one compilation serves all of them, and gradients can travel while the backward pass goes on. transformers' own
    checkpointing needs training mode, which would turn dropout on.
    """
    for layer in layers:
        if compiled:
            layer.forward = torch.compile(layer.forward)
        if checkpointed:  # there is no randomness to repeat
            layer.forward = partial(
                checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
            )
