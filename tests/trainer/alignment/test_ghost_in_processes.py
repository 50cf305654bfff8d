"""Two processes score their own sequences and agree on the members."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from data_catalog.format.tokens import IGNORED
from tests.helpers.alignment_inputs import random_direction
from tests.helpers.processes import run_in_processes
from tests.helpers.tiny_experts import tiny_experts
from tests.helpers.tiny_models import TOKENS, tiny_batch, tiny_engine, tiny_model
from trainer.alignment import Alignment, Direction
from trainer.alignment.estimate import estimate_alignment
from trainer.alignment.ghost import Ghost
from trainer.config import Training
from trainer.distributed import Team
from trainer.model.engine import build_engine
from trainer.sampling.batches import Batch

WORLD = 2
WEIGHTS = np.array(
    [[1.0, 0.5, 2.0, 0.0, 1.0], [0.1, 1.0, 1.0, 1.0, 0.0]]
)  # of two members, for five sequences


ARCHITECTURES = ("llama", "gpt2", "olmoe")


def model_of(architecture: str) -> PreTrainedModel:
    return tiny_experts() if architecture == "olmoe" else tiny_model(architecture)


def estimated(
    team: Team,
    batch: Batch,
    scores: Tensor,
    losses: Tensor,
    weights: np.ndarray,
    shares: dict[str, float],
) -> Alignment:
    return estimate_alignment(
        scores, (batch.labels != IGNORED).sum(1), losses, weights, team, shares
    )


def sharded_like(parameter: Tensor, whole: Tensor) -> Tensor:
    if isinstance(parameter, DTensor):
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements)
    return whole


def score_in_process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD
    )
    for kind in ("ddp", "fsdp2"):
        for architecture in ARCHITECTURES:
            found = []
            direction = random_direction(model_of(architecture))
            training = Training(micro_batch_sequences=1, sequence_tokens=TOKENS, parallel=kind)
            engine = build_engine(model_of(architecture), training, Team(rank, WORLD))
            tensors = {
                name: sharded_like(p, direction.tensors[name])
                for name, p in engine.parameters().items()
            }
            for count in (5, 1):  # 2 and 3 sequences; none and 1
                batch = tiny_batch(count)
                own = slice(rank * count // WORLD, (rank + 1) * count // WORLD)
                part = Batch(batch.inputs[own], batch.labels[own], batch.total)
                with Ghost(engine, Direction(tensors, 0.0, 1.0)) as ghost:
                    _, losses = engine.backward(part)
                scores = ghost.scores[: len(part.inputs)]
                found.append(
                    (
                        scores,
                        ghost.shares,
                        estimated(engine.team, part, scores, losses, WEIGHTS[:, own], ghost.shares),
                    )
                )
            torch.save(found, folder / f"{kind}-{architecture}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ghost")
    run_in_processes(score_in_process, WORLD, folder)
    return folder


@pytest.mark.system
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_score_their_own_sequences(two: Path, kind: str, architecture: str) -> None:
    """Both have the same estimates for the members, which agree with those of a single process."""
    ranks = [
        torch.load(two / f"{kind}-{architecture}-{rank}.pt", weights_only=False)
        for rank in range(WORLD)
    ]
    engine = tiny_engine(model_of(architecture))
    for number, count in enumerate((5, 1)):
        (first, first_shares, one), (second, second_shares, other) = (
            rank[number] for rank in ranks
        )
        batch = tiny_batch(count)
        with Ghost(engine, random_direction(engine.model)) as ghost:
            _, losses = engine.backward(batch)
        torch.testing.assert_close(torch.cat([first, second]), ghost.scores, rtol=1e-5, atol=1e-5)
        for name, share in ghost.shares.items():
            assert first_shares[name] + second_shares[name] == pytest.approx(
                share, rel=1e-4, abs=1e-4
            )
        alone = estimated(Team(), batch, ghost.scores, losses, WEIGHTS[:, :count], ghost.shares)
        for part in ("scores", "errors", "losses", "effective"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))
            np.testing.assert_allclose(getattr(one, part), getattr(alone, part), rtol=1e-4)
        assert one.shares == other.shares == pytest.approx(alone.shares, rel=1e-4, abs=1e-4)
