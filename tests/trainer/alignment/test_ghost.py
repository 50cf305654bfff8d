"""Ghost scores equal the gradient products of autograd: in sum, per sequence and per tensor."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from data_catalog.errors import UserError
from tests.helpers.alignment_inputs import random_direction
from tests.helpers.tiny_experts import tiny_experts
from tests.helpers.tiny_models import ARCHITECTURES, TOKENS, tiny_batch, tiny_engine, tiny_model
from trainer.alignment import Direction
from trainer.alignment.direction import target_direction
from trainer.alignment.ghost import Ghost
from trainer.config import Training
from trainer.distributed import Team
from trainer.model.engine import Engine, build_engine
from trainer.model.loss import LanguageLoss
from trainer.sampling.batches import Batch

Table = dict[str, Tensor]  # by parameter name, a number for each sequence

torch.set_num_threads(1)


def nats(model: PreTrainedModel, batch: Batch) -> Tensor:
    logits = model(input_ids=batch.inputs, use_cache=False).logits.float()
    return functional.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="none").sum(1)


def by_autograd(
    model: PreTrainedModel, batch: Batch, direction: Direction
) -> tuple[Table, dict[str, float]]:
    """Return each sequence's product with each tensor, and the sum of products of norms."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    products: dict[str, list[Tensor]] = {name: [] for name in names}
    norms = dict.fromkeys(names, 0.0)
    for loss in nats(model, batch):
        for name, g in zip(
            names, torch.autograd.grad(loss, parameters, retain_graph=True), strict=True
        ):
            products[name].append((g.double() * direction.tensors[name].double()).sum())
            norms[name] += float(g.norm() * direction.tensors[name].norm())
    return {name: torch.stack(found) for name, found in products.items()}, norms


def assert_agree(ghost: Ghost, expected: tuple[Table, dict[str, float]], tolerance: float) -> None:
    table, norms = expected
    scores = torch.stack(list(table.values())).sum(0)
    assert (ghost.scores - scores).norm() <= tolerance * scores.norm()
    assert set(ghost.shares) == set(table)
    for name, products in table.items():
        assert abs(ghost.shares[name] - float(products.sum())) <= tolerance * norms[name], name
    assert sum(ghost.shares.values()) == pytest.approx(float(ghost.scores.sum()))


def run(engine: Engine, direction: Direction, batch: Batch) -> Ghost:
    with Ghost(engine, direction) as ghost:
        engine.backward(batch)
    return ghost


architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)
embeddings = pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])


@embeddings
@architectures
def test_every_architecture_agrees_with_autograd(architecture: str, tied: bool) -> None:
    """Seven sequences run in micro-batches of three, with padding."""
    model, batch = tiny_model(architecture, tied=tied), tiny_batch(7)
    direction = random_direction(model)
    assert_agree(
        run(tiny_engine(model, micro=3), direction, batch),
        by_autograd(model, batch, direction),
        1e-5,
    )


@embeddings
@architectures
def test_bfloat16_agrees_with_fp32(architecture: str, tied: bool) -> None:
    """The direction is a real gradient.

    A random one cancels nearly all of a score, so that autograd is off by 2.2 %.
    """
    model, batch = tiny_model(architecture, tied=tied), tiny_batch(7)
    direction = target_direction(
        engine := tiny_engine(model), lambda: engine.backward(tiny_batch(8, seed=9))[0]
    )
    assert_agree(
        run(tiny_engine(model, micro=3, precision="bfloat16"), direction, batch),
        by_autograd(model, batch, direction),
        2e-2,
    )


def test_scores_agree_with_the_derivative_along_the_direction() -> None:
    model, batch = tiny_model("gpt2"), tiny_batch(5)
    direction = random_direction(model)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(values: Table) -> Tensor:
        logits = functional_call(
            model, values, kwargs={"input_ids": batch.inputs, "use_cache": False}
        ).logits
        return functional.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="none").sum(
            1
        )

    with sdpa_kernel(SDPBackend.MATH):
        _, slopes = jvp(loss, (parameters,), (dict(direction.tensors),))
    found = run(tiny_engine(model), direction, batch).scores
    torch.testing.assert_close(found, slopes.double(), rtol=1e-5, atol=1e-4)


def test_scoring_does_not_change_the_backward_pass() -> None:
    model, batch = tiny_model(), tiny_batch(7)
    engine = tiny_engine(model, micro=3)
    share, losses = engine.backward(batch)
    expected = {name: p.grad for name, p in engine.parameters().items()}
    engine.clear()
    with Ghost(engine, random_direction(model)):
        engine.losses(batch)  # not scored, because it has no backward pass
        again, losses_again = engine.backward(batch)
    assert again == share
    assert torch.equal(losses_again, losses)
    for name, p in engine.parameters().items():
        assert torch.equal(p.grad, expected[name])
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in engine.loss.modules()
    )


def test_two_batches_are_scored_one_after_the_other() -> None:
    model, direction = tiny_model(), random_direction(tiny_model())
    first, second = tiny_batch(3, seed=1), tiny_batch(2, seed=2)  # with different divisors
    engine = tiny_engine(model)
    with Ghost(engine, direction) as ghost:
        engine.backward(first)
        engine.backward(second)
    expected = [run(engine, direction, batch).scores for batch in (first, second)]
    torch.testing.assert_close(ghost.scores, torch.cat(expected), rtol=1e-12, atol=0)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_recomputed_activations_count_once(architecture: str) -> None:
    model, batch = tiny_model(architecture), tiny_batch(5)
    direction = random_direction(model)
    expected = by_autograd(model, batch, direction)
    engine = build_engine(
        model,
        Training(sequence_tokens=TOKENS, micro_batch_sequences=2, checkpoint_activations=True),
        Team(),
    )
    assert_agree(run(engine, direction, batch), expected, 1e-5)


def test_scoring_stores_no_recomputed_activation() -> None:
    def stored_elements(scored: bool) -> int:
        engine = build_engine(
            tiny_model(), Training(sequence_tokens=TOKENS, checkpoint_activations=True), Team()
        )
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.append(t.numel()) or t, lambda t: t
        ):
            if scored:
                with Ghost(engine, random_direction(engine.model)):
                    engine.loss(batch.inputs, batch.labels)
            else:
                engine.loss(batch.inputs, batch.labels)
        return sum(sizes)

    batch = tiny_batch(5)
    hidden, tokens = 5 * TOKENS * 32, 5 * TOKENS
    # The inputs of the final norm and of the embedding, which are outside the layers, are added.
    assert stored_elements(True) == stored_elements(False) + hidden + tokens


@pytest.mark.parametrize("architecture", ["olmoe", "deepseek_v3"])
def test_experts_and_routers_are_scored(architecture: str) -> None:
    model, batch = tiny_experts(architecture), tiny_batch(5)
    direction = random_direction(model)
    before = model.config._experts_implementation
    expected = by_autograd(model, batch, direction)
    assert_agree(run(tiny_engine(model, micro=2), direction, batch), expected, 1e-5)
    assert model.config._experts_implementation == before != "eager"


def test_compiled_layers_are_scored() -> None:
    model, batch = tiny_model(), tiny_batch(4)
    direction = random_direction(model)
    expected = by_autograd(model, batch, direction)
    for layer in model.model.layers:
        # The engine does the same with a slower compiler.
        layer.forward = torch.compile(layer.forward, backend="eager")
    engine = Engine(
        model,
        LanguageLoss(model, "float32"),
        Team(),
        Training(sequence_tokens=TOKENS, compile=True),
    )
    engine.backward(batch)  # compiles the layers before they are scored
    engine.clear()
    assert_agree(run(engine, direction, batch), expected, 1e-5)


def test_frozen_parameters_and_those_without_a_direction_are_ignored() -> None:
    model, batch = tiny_model("gpt2"), tiny_batch(4)
    direction = random_direction(model)
    gone, frozen = "transformer.h.0.mlp.c_fc.weight", "transformer.wpe.weight"
    table, norms = by_autograd(model, batch, direction)
    model.get_parameter(frozen).requires_grad_(False)
    tensors = {name: v for name, v in direction.tensors.items() if name != gone}
    ghost = run(tiny_engine(model), Direction(tensors, 0.0, 1.0), batch)
    for name in (gone, frozen):
        del table[name]
    assert_agree(ghost, (table, norms), 1e-5)


def test_padding_tokens_have_no_gradient() -> None:
    model, batch = tiny_model(), tiny_batch(4)
    direction = random_direction(model)
    model.get_input_embeddings().padding_idx = int(batch.inputs[0, 0])
    assert_agree(
        run(tiny_engine(model), direction, batch), by_autograd(model, batch, direction), 1e-5
    )


class BypassedLinear(nn.Module):
    """A module that uses a layer's weight without calling the layer."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.inner.weight)


class SwapFirstDimensions(nn.Module):
    """A module that swaps the first two dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1)


def test_unsupported_modules_are_refused_by_name() -> None:
    model, batch = tiny_model(), tiny_batch(4)
    mlp = model.model.layers[1].mlp
    plain = mlp.down_proj
    mlp.down_proj = BypassedLinear(plain)
    with pytest.raises(
        UserError,
        match=r'model\.layers\.1\.mlp\.down_proj\.inner\.weight .*"exact"',
    ):
        run(tiny_engine(model), random_direction(model), batch)
    mlp.down_proj = nn.Sequential(
        plain, SwapFirstDimensions(), nn.RMSNorm(32), SwapFirstDimensions()
    )  # a norm with transposed inputs
    with pytest.raises(UserError, match=r"down_proj\.2\.weight .* shape \(12, 4, 32\)"):
        run(tiny_engine(model), random_direction(model), batch)
    model.lm_head.forward = lambda x: functional.linear(x, model.lm_head.weight)
    # A parameter without a gradient needs no score.
    model.register_parameter("idle", nn.Parameter(torch.ones(2)))
    mlp.down_proj = plain
    run(tiny_engine(model), random_direction(model), batch)


def test_an_unsupported_use_of_a_tied_weight_is_refused() -> None:
    model, batch = tiny_model("gpt2"), tiny_batch(4)
    head = model.lm_head
    model.lm_head = BypassedLinear(head)
    with pytest.raises(UserError, match=r"lm_head\.inner\.weight"):
        run(tiny_engine(model), random_direction(model), batch)
