"""Several processes measure the same alignment as one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from tests.helpers.alignment_inputs import (
    BACKENDS,
    BASIS,
    assert_near,
    settings,
    text_loss,
    texts,
)
from tests.helpers.processes import run_in_processes
from tests.helpers.rounding import rounding_error
from tests.helpers.tiny_models import tiny_model
from trainer.alignment import Alignment
from trainer.alignment.direction import dots, target_direction
from trainer.alignment.exact import PARTS
from trainer.alignment.measure import (
    measure_alignment,
)
from trainer.alignment.probes import members_probe
from trainer.distributed import Team
from trainer.model.engine import build_engine


def kinds(world: int) -> tuple[str, ...]:
    """Return the kinds of parallel training. Only four processes can hold two copies of shards."""
    return ("ddp", "fsdp2", "hsdp") if world == 4 else ("ddp", "fsdp2")


def measure_in_process(rank: int, world: int, folder: Path) -> None:
    """Save the measurements of each kind of parallel training, and the sizes of the collectives."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
    )
    for kind in kinds(world):
        found, sent, _ = process_measurements(Team(rank, world, local_world=2), kind)
        arrays = {
            name: [a.scores, a.errors, a.losses, np.array(list(a.shares.values()))]
            for name, a in found.items()
        }
        torch.save(
            {
                "sent": sent,
                **{name: list(map(torch.from_numpy, four)) for name, four in arrays.items()},
            },
            folder / f"{kind}-{rank}.pt",
        )
    torch.save(squared_norms(Team(rank, world)), folder / f"norms-{rank}.pt")
    dist.destroy_process_group()


def squared_norms(team: Team) -> list[float]:
    """Return the squared norms of three rows, sharded or replicated, and of both together."""
    rows, mesh = torch.arange(6.0).view(3, 2), init_device_mesh("cpu", (team.world,))
    cut, copied = (
        distribute_tensor(rows, mesh, [placement]) for placement in (Shard(0), Replicate())
    )
    return [
        float(team.sum(dots(these, these).sum()))
        for these in ({"a": cut}, {"a": copied}, {"a": cut, "b": copied})
    ]


def process_measurements(
    team: Team, kind: str = "ddp"
) -> tuple[dict[str, Alignment], list[int], torch.Tensor]:
    """Return the alignments, the sizes of the collectives and the rounding error of differences."""
    engine = build_engine(tiny_model(), settings(parallel=kind).training, team)
    inputs, sent, found = texts(), [], {}
    direction = target_direction(
        engine, text_loss(engine, inputs.align), torch.optim.AdamW(engine.parameters().values())
    )
    reduce = dist.all_reduce

    def counting(tensor: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        sent.append(tensor.numel())
        return reduce(tensor, *arguments, **named)

    dist.all_reduce = counting
    for scores in ("raw", "clipped"):
        found[f"exact {scores}"] = measure_alignment(
            engine, direction, settings("exact", scores), inputs, 1
        )
    dist.all_reduce = reduce
    for backend in BACKENDS:
        found[backend] = measure_alignment(engine, direction, settings(backend, "raw"), inputs, 1)
    toward = target_direction(engine, members_probe(engine, settings(), inputs, 1))
    doge = settings("exact", "raw").mixture.model_copy(
        update={"mixer": "doge", "toward": "members"}
    )
    found["toward members"] = measure_alignment(
        engine, toward, settings().model_copy(update={"mixture": doge}), inputs, 1
    )
    losses = torch.from_numpy(found["finite_difference"].losses)
    return found, sent, rounding_error(engine, direction, losses)


@pytest.fixture(scope="module", params=[2, 4])
def several(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[dict[str, Any]]]:
    folder, world = tmp_path_factory.mktemp("agree"), request.param
    run_in_processes(measure_in_process, world, world, folder)
    return lambda kind: [
        torch.load(folder / f"{kind}-{rank}.pt") for rank in range(world) if kind in kinds(world)
    ]


@pytest.mark.system
@pytest.mark.parametrize("kind", ["ddp", "fsdp2", "hsdp"])
def test_several_processes_agree_with_one(
    several: Callable[[str], list[dict[str, Any]]], kind: str
) -> None:
    alone, _, rounding = process_measurements(Team())
    for found in several(kind):
        for name, expected in alone.items():
            scores, errors, losses, shares = found[name]
            differs = name == "finite_difference"  # Both sides have rounding errors.
            assert_near(scores, expected.scores, 1e-5, 2 * rounding if differs else 0)
            assert_near(losses, expected.losses, 1e-5)
            assert_near(shares, list(expected.shares.values()), 1e-5)
            same_parts = kind == "ddp" and name.startswith("exact")
            if same_parts or name == "ghost":
                np.testing.assert_allclose(errors, expected.errors, rtol=1e-4)
        if kind == "hsdp":  # the sums over copies of the model go the same way
            continue
        members, tensors = len(BASIS.names), len(expected.shares)
        assert [n for n in found["sent"] if n > 1] == [
            members * (2 * PARTS + 3) + tensors,
            members * (2 + 3) + tensors,
        ]
        # There is one sum each. Sharded engines also exchange their number of micro-batches.
        assert kind != "ddp" or len(found["sent"]) == 2


@pytest.mark.system
def test_shards_and_replicas_count_once(several: Callable[[str], list[Any]]) -> None:
    assert several("norms") == [[55.0, 55.0, 110.0]] * len(several("norms"))
