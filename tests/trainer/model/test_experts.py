"""Mixtures of experts: their auxiliary loss, their biases and the operations of a token."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PreTrainedModel

from data_catalog.errors import UserError
from data_catalog.format.tokens import IGNORED
from tests.helpers.processes import run_in_processes
from tests.helpers.tiny_experts import EXPERTS, PER_TOKEN, tiny_experts
from tests.helpers.tiny_models import TOKENS, VOCABULARY, tiny_batch, tiny_model
from trainer.config import Training
from trainer.distributed import Team, process_slice
from trainer.model.engine import Engine, build_engine
from trainer.model.experts import BIAS_STEP, check_balance, expert_parameters, has_balance_loss
from trainer.model.flops import flops_per_token
from trainer.sampling.batches import Batch


def engine_of(model: PreTrainedModel, **settings: object) -> Engine:
    training = Training.model_validate({"sequence_tokens": TOKENS, **settings})
    return build_engine(model, training, Team())


def gradients(engine: Engine, batch: Batch, *, regularised: bool) -> dict[str, Tensor]:
    engine.clear()
    engine.backward(batch, regularised=regularised)
    return {name: p.grad.clone() for name, p in engine.parameters().items() if p.grad is not None}


@pytest.mark.parametrize("architecture", ["olmoe", "mixtral"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_balanced_gradient_is_that_of_the_models_own_loss(
    architecture: str, checkpointed: bool
) -> None:
    model = tiny_experts(architecture)
    model.router_aux_loss_coef = 0.5
    tokens = torch.randint(0, VOCABULARY, (3, TOKENS + 1))
    # The model shifts labels by itself. Its last position has no label, and is masked.
    labels, mask = tokens[:, 1:].clone(), torch.ones(3, TOKENS)
    labels[:, -1], mask[:, -1] = IGNORED, 0
    own = {"input_ids": tokens[:, :-1], "labels": tokens[:, :-1], "attention_mask": mask}
    model(**own, output_router_logits=True).loss.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    batch = Batch(tokens[:, :-1], labels, 3 * (TOKENS - 1))
    # The model itself attends over an end-of-text, which is 0 here.
    engine = engine_of(model, checkpoint_activations=checkpointed, separate_documents=False)
    found = gradients(engine, batch, regularised=True)
    assert all(torch.allclose(found[name], wanted[name], atol=1e-6) for name in wanted)
    plain = gradients(engine, batch, regularised=False)
    routers = [name for name in wanted if "mlp.gate." in name]
    assert not any(torch.allclose(plain[name], wanted[name], atol=1e-3) for name in routers)
    assert engine.backward(batch)[0] == engine.backward(batch, regularised=True)[0]


def test_padding_does_not_count_for_the_balance() -> None:
    engine, batch = engine_of(tiny_experts()), tiny_batch(4)
    other = batch.inputs.clone()
    other[batch.labels == IGNORED] = 7
    first = gradients(engine, batch, regularised=True)
    second = gradients(engine, Batch(other, batch.labels, batch.total), regularised=True)
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)
    empty = Batch(batch.inputs, torch.full_like(batch.labels, IGNORED), 1)
    assert all(not g.any() for g in gradients(engine, empty, regularised=True).values())


def test_training_with_the_auxiliary_loss_balances_the_loads() -> None:
    def imbalance(regularised: bool) -> float:
        model, batch = tiny_experts(), tiny_batch(8)
        model.router_aux_loss_coef = 5.0
        engine = engine_of(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(15):
            engine.clear()
            engine.backward(batch, regularised=regularised)
            optimizer.step()
        with torch.no_grad():
            return float(model(batch.inputs, output_router_logits=True).aux_loss) - PER_TOKEN

    assert imbalance(True) < 0.5 * imbalance(False)


def test_biases_move_toward_equal_loads() -> None:
    model = tiny_experts("deepseek_v3")
    engine, batch = engine_of(model, micro_batch_sequences=2), tiny_batch(5)
    gate = model.model.layers[1].mlp.gate
    with torch.no_grad():
        gate.e_score_correction_bias[:] = torch.tensor([9.0, 5.0, 0.0, 0.0])  # experts 0 and 1
    before = gate.e_score_correction_bias.clone()
    engine.backward(batch)  # a measurement
    engine.balance()
    assert torch.equal(gate.e_score_correction_bias, before)
    engine.backward(batch, regularised=True)
    engine.balance()
    change = gate.e_score_correction_bias - before
    assert change.tolist() == pytest.approx(
        [-BIAS_STEP, -BIAS_STEP, BIAS_STEP, BIAS_STEP], rel=1e-2
    )
    engine.backward(batch, regularised=True)
    engine.clear()  # a step that is given up
    before = gate.e_score_correction_bias.clone()
    engine.balance()
    assert torch.equal(gate.e_score_correction_bias, before)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_every_token_with_a_label_is_counted_once(checkpointed: bool) -> None:
    engine = engine_of(tiny_experts("deepseek_v3"), checkpoint_activations=checkpointed)
    batch = tiny_batch(5)
    engine.backward(batch, regularised=True)
    assert engine.biases is not None
    (loads,) = engine.biases._loads.values()
    assert loads.sum() == PER_TOKEN * (batch.labels != IGNORED).sum()


def test_experts_that_nothing_balances_are_refused() -> None:
    for name in ("olmoe", "mixtral", "deepseek_v3"):
        check_balance("model.path", name, tiny_experts(name))
    check_balance("model.path", "llama", tiny_model())
    with pytest.raises(UserError, match=r"model\.path here: .*DeepseekV2ForCausalLM"):
        check_balance("model.path", "here", tiny_experts("deepseek_v2"))
    unbalanced = tiny_experts()
    unbalanced.router_aux_loss_coef = 0.0  # The user wants it so.
    check_balance("model.path", "olmoe", unbalanced)
    assert has_balance_loss(tiny_experts())
    assert not has_balance_loss(unbalanced)


def test_operations_of_the_experts_that_a_token_uses() -> None:
    model = tiny_experts()
    experts = sum(p.numel() for _, p in expert_parameters(model))
    assert experts == 2 * EXPERTS * (2 * 48 * 32 + 32 * 48)
    table = model.get_input_embeddings().weight.numel()  # It is not tied.
    others = sum(p.numel() for p in model.parameters()) - experts - table
    assert flops_per_token(model, 0) == 6 * (others + experts * PER_TOKEN / EXPERTS)


def balance_in_process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for kind in ("ddp", "fsdp2"):
        torch.save(balanced(Team(rank, 2), kind), folder / f"{kind}-{rank}.pt")
    dist.destroy_process_group()


def balanced(team: Team, kind: str) -> Tensor:
    """Return the biases after three steps without an optimizer."""
    model = tiny_experts("deepseek_v3")
    training = Training(sequence_tokens=TOKENS, parallel=kind, micro_batch_sequences=2)
    engine = build_engine(model, training, team)
    for step in range(3):
        batch = tiny_batch(5, seed=step)
        own = process_slice(5, team.rank, team.world)
        engine.clear()
        engine.backward(Batch(batch.inputs[own], batch.labels[own], batch.total), regularised=True)
        engine.balance()
    (bias,) = engine.biases._biases if engine.biases else ()
    return bias.clone()


@pytest.mark.system
def test_processes_have_the_biases_of_a_single_process(tmp_path: Path) -> None:
    run_in_processes(balance_in_process, 2, tmp_path)
    wanted = balanced(Team(), "ddp")
    assert wanted.any()
    for file in tmp_path.glob("*.pt"):
        assert torch.equal(torch.load(file), wanted), file.name
