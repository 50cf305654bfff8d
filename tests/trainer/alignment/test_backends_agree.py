"""Every backend gives the scores of the exact one, of autograd and of forward-mode differentiation; so do several processes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.func import functional_call, jvp
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from data_catalog.format.distributions import Basis
from data_catalog.format.tokens import TokenStore
from tests.helpers.processes import run_in_processes
from tests.helpers.rounding import TRUNCATION, rounding_error
from tests.helpers.tiny_models import TOKENS, VOCABULARY, tiny_engine, tiny_model
from trainer.alignment import Alignment, Direction
from trainer.alignment.direction import dots, gradients, target_direction
from trainer.alignment.exact import PARTS, exact_alignment
from trainer.alignment.measure import (
    ScoredSequences,
    backward_and_score,
    batch_alignment,
    measure_alignment,
    member_losses,
)
from trainer.alignment.probes import member_probes, members_probe
from trainer.config import Train
from trainer.distributed import Team
from trainer.evaluation.objectives import TextLoss
from trainer.inputs import Inputs
from trainer.model.engine import Engine, build_engine
from trainer.sampling.batches import Batch, Pool

BACKENDS = ("ghost", "finite_difference")
BASIS = Basis(
    ("first", "second", "both"), np.array([[1.0, 0, 0, 0], [0, 0.5, 0.5, 0], [0.3, 0.2, 0.1, 0.4]])
)


def text_loss(engine: Engine, align: Pool) -> Callable[[], torch.Tensor]:
    """The target objective of a run on text."""
    return partial(
        TextLoss(align, settings().mixture.target_sequences, settings().seed).backward, engine, 0
    )


class Texts(TokenStore):
    """A token store of four leaves: random tokens, each leaf's from a range of its own; some sequences are short."""

    def __init__(self, edition: int) -> None:
        object.__setattr__(self, "edition", edition)

    def sequences(self, length: int) -> np.ndarray:
        return np.array([9, 5, 7, 6])

    def targets(self, leaves: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
        return length - (leaves + rows) % 5

    def read(
        self, leaves: np.ndarray, rows: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        inputs, labels = (
            np.zeros((len(leaves), length), np.int64),
            np.full((len(leaves), length), -100),
        )
        for i, (leaf, row) in enumerate(zip(leaves, rows, strict=True)):
            kept = self.targets(leaf, row, length)
            tokens = (
                np.random.Generator(np.random.Philox(key=[4 * self.edition + leaf, row])).integers(
                    10 * leaf, 10 * leaf + 30, length + 1
                )
                % VOCABULARY
            )
            inputs[i, :kept], labels[i, :kept] = tokens[:kept], tokens[1 : kept + 1]
        return inputs, labels


def settings(
    backend: str = "exact", scores: str = "raw", sequences: int = 6, **training: Any
) -> Train:
    mixture = {
        "backend": backend,
        "scores": scores,
        "basis_sequences": sequences,
        "target_sequences": 5,
    }
    sizes = {"sequence_tokens": TOKENS, "batch_sequences": 4, "micro_batch_sequences": 2}
    return Train.model_validate(
        {
            "catalog": "c",
            "out": "o",
            "target": "t",
            "mixture": mixture,
            "training": {**sizes, **training},
        }
    )


def texts() -> Inputs:
    """What of a run's inputs is measured on."""
    corpus, align = (Pool(Texts(edition), TOKENS, "texts") for edition in range(2))
    parts = object.__new__(Inputs)  # only what gradients are measured on
    vars(parts).update(corpus=corpus, align=align, basis=BASIS)
    return parts


def toward_target(engine: Engine) -> Direction:
    return target_direction(engine, text_loss(engine, texts().align))


def near(found: Any, expected: Any, tolerance: float, error: Any = 0.0) -> None:
    """Within `tolerance` of the expected vector's length, and within the length of `error` beyond it."""
    found, expected = np.asarray(found), np.asarray(expected)
    allowed = tolerance * np.linalg.norm(expected) + np.linalg.norm(np.asarray(error))
    assert np.linalg.norm(found - expected) <= allowed


def forward_mode(engine: Engine, direction: Direction, batch: Batch) -> torch.Tensor:
    """Each sequence's slope along v by `torch.func.jvp`, which fused attention does not support."""

    def nats(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = functional_call(
            engine.model, parameters, (), {"input_ids": batch.inputs, "use_cache": False}
        ).logits
        return functional.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="none").sum(
            1
        )

    with sdpa_kernel(SDPBackend.MATH):
        return jvp(
            nats,
            ({n: p.detach() for n, p in engine.parameters().items()},),
            (dict(direction.tensors),),
        )[1].double()


@pytest.mark.parametrize(
    ("architecture", "tied"), [("llama", True), ("llama", False), ("gpt2", True), ("qwen2", True)]
)
def test_backends_agree_with_exact_and_with_forward_mode(architecture: str, tied: bool) -> None:
    engine = tiny_engine(tiny_model(architecture, tied=tied), micro=4)
    direction, probes = toward_target(engine), member_probes(settings(), texts(), 1)
    exact = exact_alignment(engine, direction, probes, "raw")
    for member, probe in enumerate(probes):
        batch = probe()
        near(forward_mode(engine, direction, batch).sum() / batch.total, exact.scores[member], 1e-5)
        rounding = rounding_error(engine, direction, engine.losses(batch))
        for backend in BACKENDS:
            differs = backend == "finite_difference"
            tolerance, error = (TRUNCATION, rounding) if differs else (1e-5, 0 * rounding)
            engine.clear()
            share, scored = backward_and_score(
                engine, direction, batch, np.zeros(6, np.int64), backend
            )
            near(scored.scores, forward_mode(engine, direction, batch), tolerance, error)
            total, error_of_total = scored.scores.sum(), error.sum()
            near(total / batch.total, exact.scores[member], tolerance, error_of_total / batch.total)
            assert float(share) == pytest.approx(exact.losses[member], rel=1e-6)
            near(
                dots(gradients(engine), direction.tensors).sum(), exact.scores[member], 1e-6
            )  # the step's gradient is there


def test_exact_and_ghost_agree_by_tensor() -> None:
    engine = tiny_engine(tiny_model("gpt2"))
    direction, probe = toward_target(engine), member_probes(settings(), texts(), 1)[2]
    exact = exact_alignment(engine, direction, [probe], "raw")
    batch = probe()
    scored = backward_and_score(engine, direction, batch, np.zeros(6, np.int64), "ghost")[1]
    autograd = dict(
        zip(direction.tensors, dots(gradients(engine), direction.tensors).tolist(), strict=True)
    )
    assert exact.shares.keys() == scored.shares.keys() == autograd.keys()
    for name, value in autograd.items():
        assert exact.shares[name] == pytest.approx(value, rel=1e-5)
        assert scored.shares[name] / batch.total == pytest.approx(
            value, rel=1e-4, abs=1e-6 * exact.scores[0]
        ), name
    assert sum(exact.shares.values()) == pytest.approx(exact.scores[0], rel=1e-12)


def test_in_bfloat16_they_agree_as_far_as_it_goes() -> None:
    engine = tiny_engine(tiny_model(), precision="bfloat16")
    direction, probe = toward_target(engine), member_probes(settings(), texts(), 1)[2]
    exact, batch = exact_alignment(engine, direction, [probe], "raw"), probe()
    engine.clear()
    scored = backward_and_score(engine, direction, batch, np.zeros(6, np.int64), "ghost")[1]
    near(scored.scores.sum() / batch.total, exact.scores[0], 2e-2)


def test_the_pooled_sample_estimates_the_same_scores() -> None:
    """Draw after draw, scores differ from those of all that a member can draw by about their standard errors."""
    engine = tiny_engine(tiny_model())
    direction, errors = toward_target(engine), []
    truth = exact_alignment(engine, direction, [lambda i=i: population(i) for i in range(3)], "raw")
    for stage in range(30):
        found = measure_alignment(
            engine,
            direction,
            settings("ghost", "normalised", 24, batch_sequences=72),
            texts(),
            stage,
        )
        errors.append((found.scores - truth.scores) / found.errors)
        assert (
            found.effective > 23.9
        ).all()  # a member has its own draws at least, and what others drew for it
    assert np.sqrt(np.square(errors).mean()) == pytest.approx(1.0, abs=0.4)
    assert abs(np.mean(errors)) < 0.4
    assert all(p.grad is None for p in engine.model.parameters())


def population(member: int) -> Batch:
    """Sequences of all leaves in proportion to the member's distribution, as nearly as whole numbers go: all of a leaf, over and over."""
    sizes = Texts(0).sequences(TOKENS)
    times = np.rint(BASIS.matrix[member] / sizes * 630).astype(
        int
    )  # 630 is divided by 5, 7, 9 and 6
    leaves = np.concatenate([np.tile(np.full(sizes[leaf], leaf), times[leaf]) for leaf in range(4)])
    rows = np.concatenate([np.tile(np.arange(sizes[leaf]), times[leaf]) for leaf in range(4)])
    return texts().corpus.read(leaves, rows)


def test_a_training_batch_is_scored_where_it_is_trained_on() -> None:
    engine, inputs, density = tiny_engine(tiny_model()), texts(), np.array([0.4, 0.2, 0.2, 0.2])
    direction, rows = toward_target(engine), np.array([0, 1, 2, 3, 4, 0, 1])
    leaves = np.array([0, 0, 1, 1, 2, 3, 3])
    batch = inputs.corpus.read(leaves, rows)
    engine.clear()
    scored = backward_and_score(engine, direction, batch, leaves, "ghost")[1]
    found = batch_alignment(engine.team, BASIS.matrix, density, [scored])
    only = {
        leaf: batch_alignment(engine.team, np.eye(4), density, [scored]).scores[leaf]
        for leaf in range(4)
    }
    assert found.scores[0] == pytest.approx(only[0])  # the first member is leaf 0
    halves = [slice(0, 3), slice(3, 7)]  # of two batches scored with one direction, the same
    parts = [
        ScoredSequences(leaves[h], scored.tokens[h], scored.losses[h], scored.scores[h])
        for h in halves
    ]
    near(batch_alignment(engine.team, BASIS.matrix, density, parts).scores, found.scores, 1e-12)


def test_losses_without_gradients_are_those_of_the_scored_sequences() -> None:
    engine, reference = tiny_engine(tiny_model()), tiny_engine(tiny_model(seed=5))
    found = measure_alignment(engine, toward_target(engine), settings("ghost", "raw"), texts(), 4)
    np.testing.assert_allclose(
        member_losses(engine, settings(), texts(), 4), found.losses, rtol=1e-6
    )
    assert not np.allclose(
        member_losses(reference, settings(), texts(), 4), found.losses, rtol=1e-3
    )


def test_the_members_own_direction_is_their_mean_gradient() -> None:
    engine = tiny_engine(tiny_model())
    toward = target_direction(engine, members_probe(engine, settings(), texts(), 2))
    found = exact_alignment(engine, toward, member_probes(settings(), texts(), 2), "raw")
    assert found.scores.mean() == pytest.approx(toward.norm**2, rel=1e-6)
    assert toward.loss == pytest.approx(found.losses.mean(), rel=1e-6)


def in_processes(rank: int, world: int, folder: Path) -> None:
    """What each kind of parallel training measures, and how many numbers went over the wire while exact scores were."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
    )
    for kind in ("ddp", "fsdp2"):
        found, sent, _ = measured(Team(rank, world), kind)
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
    """Of three rows, cut unevenly or not at all, and of both together."""
    rows, mesh = torch.arange(6.0).view(3, 2), init_device_mesh("cpu", (team.world,))
    cut, copied = (
        distribute_tensor(rows, mesh, [placement]) for placement in (Shard(0), Replicate())
    )
    return [
        float(team.sum(dots(these, these).sum()))
        for these in ({"a": cut}, {"a": copied}, {"a": cut, "b": copied})
    ]


def measured(team: Team, kind: str = "ddp") -> tuple[dict[str, Alignment], list[int], torch.Tensor]:
    """Return the alignments, how many numbers each sum over the processes held, and the rounding error of differences."""
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
    found["toward members"] = measure_alignment(engine, toward, settings("exact", "raw"), inputs, 1)
    losses = torch.from_numpy(found["finite_difference"].losses)
    return found, sent, rounding_error(engine, direction, losses)


@pytest.fixture(scope="module", params=[2, 4])
def several(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[dict[str, Any]]]:
    folder, world = tmp_path_factory.mktemp("agree"), request.param
    run_in_processes(in_processes, world, world, folder)
    return lambda kind: [torch.load(folder / f"{kind}-{rank}.pt") for rank in range(world)]


@pytest.mark.system
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_several_processes_measure_what_one_does(
    several: Callable[[str], list[dict[str, Any]]], kind: str
) -> None:
    alone, _, rounding = measured(Team())
    for found in several(kind):
        for name, expected in alone.items():
            scores, errors, losses, shares = found[name]
            differs = name == "finite_difference"  # and so is rounded on either side
            near(scores, expected.scores, 1e-5, 2 * rounding if differs else 0)
            near(losses, expected.losses, 1e-5)
            near(shares, list(expected.shares.values()), 1e-5)
            same_parts = kind == "ddp" and name.startswith("exact")
            if same_parts or name == "ghost":
                np.testing.assert_allclose(errors, expected.errors, rtol=1e-4)
        members, tensors = len(BASIS.names), len(expected.shares)
        assert [n for n in found["sent"] if n > 1] == [
            members * (2 * PARTS + 3) + tensors,
            members * (2 + 3) + tensors,
        ]
        assert (
            kind == "fsdp2" or len(found["sent"]) == 2
        )  # one sum each; sharded, also how many micro-batches the others have


@pytest.mark.system
def test_shards_and_copies_count_once(several: Callable[[str], list[Any]]) -> None:
    assert several("norms") == [[55.0, 55.0, 110.0]] * len(several("norms"))
