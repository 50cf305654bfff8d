"""Gradients of micro-batches, of recomputed and compiled layers, and of two processes are equal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from tests.helpers.processes import run_in_processes
from tests.helpers.tiny_models import TOKENS, tiny_batch, tiny_model
from trainer.config import Optimizer, Training
from trainer.distributed import Team
from trainer.model.engine import Engine, build_engine
from trainer.model.optimizer import build_optimizer
from trainer.model.parallel import decoder_layers
from trainer.sampling.batches import Batch

WORLD = 2
Z_LOSS = 0.3
OPTIMIZERS = {
    "muon": Optimizer(learning_rate=0.01, kind="muon"),
    "adamw": Optimizer(learning_rate=0.01),
}
Named = dict[str, Tensor]


def plain(model: PreTrainedModel, batch: Batch) -> tuple[Named, Tensor]:
    """Return the gradient of the mean loss and each sequence's nats, from transformers alone."""
    logits = model(input_ids=batch.inputs, use_cache=False).logits.float()
    nats = functional.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="none").sum(1)
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(
        zip(names, torch.autograd.grad(nats.sum() / batch.total, parameters), strict=True)
    ), nats.detach()


def engine_of(model: PreTrainedModel, team: Team | None = None, **training: Any) -> Engine:
    return build_engine(
        model,
        Training.model_validate(
            {
                "micro_batch_sequences": 2,
                "sequence_tokens": TOKENS,
                "separate_documents": False,  # as the plain model
                **training,
            }
        ),
        team or Team(),
    )


def gradient(engine: Engine) -> Named:
    return {
        name: whole(p.grad)
        for name, p in engine.parameters().items()
        if p.grad is not None and name != "idle"
    }


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def assert_same(found: Named, expected: Named, rtol: float = 1e-5) -> None:
    """Check that every tensor is within `rtol` of the expected one's norm."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name] - tensor).norm() <= rtol * tensor.norm() + 1e-9, name


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "training",
    [{"micro_batch_sequences": 64}, {}, {"checkpoint_activations": True}],
    ids=["whole", "micro", "again"],
)
def test_gradient_and_losses_equal_the_plain_ones(
    architecture: str, training: dict[str, Any]
) -> None:
    batch = tiny_batch(5)
    expected, nats = plain(tiny_model(architecture), batch)
    engine = engine_of(tiny_model(architecture), **training)
    total, sequences = engine.backward(batch)
    assert_same(gradient(engine), expected)
    torch.testing.assert_close(sequences, nats)
    torch.testing.assert_close(engine.losses(batch), nats)
    assert total.item() == pytest.approx(nats.double().sum().item() / batch.total, rel=1e-6)


def test_bfloat16_is_close_and_its_gradients_are_fp32() -> None:
    batch = tiny_batch(5)
    expected, nats = plain(tiny_model(), batch)
    engine = engine_of(tiny_model(), precision="bfloat16")
    _, sequences = engine.backward(batch)
    assert {g.dtype for g in gradient(engine).values()} == {torch.float32}
    assert_same(gradient(engine), expected, rtol=0.05)
    assert not torch.equal(sequences, nats)  # computed in bfloat16, not in fp32
    torch.testing.assert_close(sequences, nats, rtol=0.02, atol=0)


def test_recomputed_layers_keep_only_their_input() -> None:
    def saved(**training: bool) -> int:
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.data_ptr()] = tensor.numel()
            return tensor

        engine = engine_of(tiny_model(), micro_batch_sequences=64, **training)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            engine.loss(tiny_batch(5).inputs, tiny_batch(5).labels)
        return sum(kept.values())

    assert saved(checkpoint_activations=True) < 0.7 * saved()


def test_decoder_layers_are_the_blocks() -> None:
    assert [type(layer).__name__ for layer in decoder_layers(tiny_model("gpt2"))] == [
        "GPT2Block"
    ] * 2
    assert decoder_layers(nn.Linear(2, 2)) == []


@pytest.mark.slow
def test_compiled_layers_have_the_same_gradient_and_are_compiled_once() -> None:
    batch = tiny_batch(4)
    expected, _ = plain(tiny_model(), batch)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    engine = engine_of(tiny_model(), compile=True, checkpoint_activations=True)
    engine.backward(batch)
    assert_same(gradient(engine), expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_clip_by_hand() -> None:
    engine = engine_of(tiny_model())
    first, second, *_ = engine.parameters().values()
    first.grad, second.grad = torch.zeros_like(first), torch.zeros_like(second)
    first.grad.view(-1)[0], second.grad.view(-1)[1] = 3.0, 4.0
    assert engine.clip(10.0) == 5.0
    assert first.grad.view(-1)[0] == 3.0
    assert engine.clip(1.0) == 5.0
    assert first.grad.view(-1)[0].item() == pytest.approx(0.6, rel=1e-5)
    engine.clear()
    assert gradient(engine) == {}


def test_digest_changes_with_a_single_bit() -> None:
    model = tiny_model()
    engine = engine_of(model)
    before = engine.digest()
    assert engine.digest() == before == engine_of(tiny_model()).digest()
    with torch.no_grad():
        weight = next(model.parameters()).view(-1)
        weight[3] = torch.nextafter(weight[3], torch.tensor(9.0))
    assert engine.digest() != before


def part(batch: Batch, rank: int) -> Batch:
    count = len(batch.inputs)
    own = slice(rank * count // WORLD, (rank + 1) * count // WORLD)
    return Batch(batch.inputs[own], batch.labels[own], batch.total)


def run_in_process(rank: int, folder: Path) -> None:
    """Save the results of each kind of parallel training on the same batches."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD
    )
    for kind in ("ddp", "fsdp2"):
        torch.save(measured(kind, Team(rank, WORLD)), folder / f"{kind}-{rank}.pt")
    dist.destroy_process_group()


def measured(kind: str, team: Team) -> dict[str, Any]:
    five, single = (
        part(tiny_batch(5), team.rank),
        part(tiny_batch(1), team.rank),
    )  # 2 and 3 sequences; none and 1
    found: dict[str, Any] = {}
    for name, training in {
        "micro": {},
        "again": {"checkpoint_activations": True},
        "bfloat16": {"precision": "bfloat16"},
    }.items():
        engine = engine_of(tiny_model(), team, parallel=kind, micro_batch_sequences=1, **training)
        found[f"{name}.nats"] = engine.backward(five)[1]
        found[name] = gradient(engine)
    engine = engine_of(tiny_model(), team, parallel=kind, micro_batch_sequences=1, z_loss=Z_LOSS)
    engine.backward(five, regularised=True)
    found["z"] = gradient(engine)
    model = tiny_model("gpt2")
    model.register_parameter(
        "idle", nn.Parameter(torch.ones(2))
    )  # as an expert that no token reaches
    engine = engine_of(model, team, parallel=kind)

    def fresh(batch: Batch, shared: bool = True) -> Named:
        engine.clear()
        engine.backward(batch, shared=shared)
        return gradient(engine)

    found["single"] = fresh(single)
    found["single.nats"] = engine.losses(single)
    if engine.sharded:
        found["local"] = fresh(five, shared=False)
    else:  # One process runs two local batches, the other none.
        found["local"] = (
            [fresh(tiny_batch(5), shared=False) for _ in range(2)][-1] if team.rank == 0 else None
        )
    found["after"] = fresh(five)
    found["norm"] = float(engine.clip(0.5))
    found["clipped"] = gradient(engine)

    for name, settings in OPTIMIZERS.items():
        engine = engine_of(tiny_model(), team, parallel=kind)
        optimizer = build_optimizer(engine.model, settings)
        for seed in range(3):
            engine.clear()
            engine.backward(part(tiny_batch(5, seed=seed), team.rank))
            optimizer.step()
        found[f"{name}.digest"] = engine.digest()
        found[name] = {name: whole(p) for name, p in engine.parameters().items()}
    engine.losses(five)
    with torch.no_grad():
        for p in engine.parameters().values():
            p.mul_(0.5)
    found["halved.nats"] = engine.losses(five)
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("engine")
    run_in_processes(run_in_process, WORLD, folder)
    return lambda kind: [torch.load(folder / f"{kind}-{rank}.pt") for rank in range(WORLD)]


kinds = pytest.mark.parametrize("kind", ["ddp", "fsdp2"])


@pytest.mark.system
@kinds
def test_two_processes_sum_the_same_gradient(
    two: Callable[[str], list[dict[str, Any]]], kind: str
) -> None:
    expected, nats = plain(tiny_model(), tiny_batch(5))
    engine = engine_of(tiny_model(), z_loss=Z_LOSS)
    engine.backward(tiny_batch(5), regularised=True)
    with_z = gradient(engine)
    for found in two(kind):
        assert_same(found["micro"], expected)
        assert_same(found["again"], expected)
        assert_same(found["bfloat16"], expected, rtol=0.05)
        assert_same(found["z"], with_z)
    torch.testing.assert_close(torch.cat([found["micro.nats"] for found in two(kind)]), nats)


@pytest.mark.system
@kinds
def test_a_process_without_sequences_takes_part(
    two: Callable[[str], list[dict[str, Any]]], kind: str
) -> None:
    expected, nats = plain(tiny_model("gpt2"), tiny_batch(1))
    first, second = two(kind)
    assert_same(first["single"], expected)
    assert_same(second["single"], expected)
    assert len(first["single.nats"]) == 0
    torch.testing.assert_close(second["single.nats"], nats)


@pytest.mark.system
@kinds
def test_local_gradients_do_not_change_summed_ones(
    two: Callable[[str], list[dict[str, Any]]], kind: str
) -> None:
    expected, _ = plain(tiny_model("gpt2"), tiny_batch(5))
    norm = torch.stack([g.norm() for g in expected.values()]).norm().item()
    for found in two(kind):
        if found["local"] is not None:
            assert_same(found["local"], expected)
        assert_same(found["after"], expected)
        assert found["norm"] == pytest.approx(norm, rel=1e-5)
        assert_same(found["clipped"], {name: g * (0.5 / norm) for name, g in expected.items()})


@pytest.mark.system
@kinds
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_processes_take_the_same_steps(
    two: Callable[[str], list[dict[str, Any]]], kind: str, name: str
) -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, OPTIMIZERS[name])
    for seed in range(3):
        for parameter, g in plain(model, tiny_batch(5, seed=seed))[0].items():
            model.get_parameter(parameter).grad = g
        optimizer.step()
    first, second = two(kind)
    expected = {parameter: p.detach() for parameter, p in model.named_parameters()}
    # Muon multiplies in bfloat16, so that the last bits of a gradient matter more.
    assert_same(first[name], expected, rtol=1e-4 if name == "adamw" else 0.02)
    assert first[f"{name}.digest"] == second[f"{name}.digest"]
    if name != "adamw":
        return
    halved = tiny_model()
    with torch.no_grad():
        for parameter, p in halved.named_parameters():
            p.copy_(0.5 * first["adamw"][parameter])
    torch.testing.assert_close(
        torch.cat([first["halved.nats"], second["halved.nats"]]), plain(halved, tiny_batch(5))[1]
    )


def run_compiled_in_process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD
    )
    expected, _ = plain(tiny_model(), tiny_batch(4))
    for kind in ("ddp", "fsdp2"):
        engine = engine_of(tiny_model(), Team(rank, WORLD), parallel=kind, compile=True)
        engine.backward(part(tiny_batch(4), rank))
        assert_same(gradient(engine), expected)
    dist.destroy_process_group()


@pytest.mark.system
@pytest.mark.slow
def test_compiled_layers_sum_the_same_gradient(tmp_path: Path) -> None:
    run_in_processes(run_compiled_in_process, WORLD, tmp_path)
