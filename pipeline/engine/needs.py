"""Resources that a part needs, and the order in which the parts of a stage start."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.parts import Part
from pipeline.source.documents import Shard

# Stages that run the encoder or train the tree. They take a GPU if the cluster has one.
GPU_STAGES = frozenset({"embed", "targets", "tree"})
MEGABYTE = 2**20


@dataclass(frozen=True)
class Machine:
    """A machine of a cluster, as far as scheduling is concerned."""

    cpus: float
    gpus: float
    memory: float  # bytes


@dataclass(frozen=True)
class Needs:
    """Resources that a part takes while it runs."""

    cpus: float = 1
    gpu: bool = False
    memory: int = 0  # bytes; 0 if the part needs little


def stage_needs(
    stage: str, parts: int, machines: Sequence[Machine], memory: Mapping[str, int]
) -> Needs:
    """Return what each part of a stage needs.

    A stage of a single part takes all cores of the largest machine, because nothing else runs
    meanwhile. No need exceeds the largest machine, so that every part can be scheduled.

    Args:
        stage: Name of the stage.
        parts: Number of its parts.
        machines: Machines of the cluster.
        memory: Memory in megabytes of the parts of some stages, by the stage's name.
    """
    cpus = max((machine.cpus for machine in machines), default=1)
    largest = max((machine.memory for machine in machines), default=0)
    return Needs(
        cpus=max(cpus, 1) if parts == 1 else 1,
        gpu=stage in GPU_STAGES and any(machine.gpus >= 1 for machine in machines),
        memory=int(min(memory.get(stage, 0) * MEGABYTE, largest)),
    )


def shared_arguments(calls: Sequence[tuple[Any, ...]]) -> dict[int, Any]:
    """Return the objects that are an argument of several calls, by their `id`."""
    counts = Counter(id(argument) for arguments in calls for argument in arguments)
    return {
        id(argument): argument
        for arguments in calls
        for argument in arguments
        if counts[id(argument)] > 1
    }


def largest_first(calls: Sequence[tuple[Any, ...]]) -> list[int]:
    """Return the numbers of the calls, those with the most input first.

    A large part that starts last would keep the stage waiting. Arguments that calls share do not
    count. Calls of equal size keep their order.
    """
    shared = shared_arguments(calls)
    sizes = [
        sum(_size(argument) for argument in arguments if id(argument) not in shared)
        for arguments in calls
    ]
    return sorted(range(len(calls)), key=lambda number: -sizes[number])


def _size(argument: Any) -> int:
    """Return the size of an input: bytes of a shard's files, or characters of a part."""
    match argument:
        case Shard():
            return sum(file.bytes for file in argument.inputs)
        case Part():
            return argument.account.kept.characters
        case _:
            return 0
