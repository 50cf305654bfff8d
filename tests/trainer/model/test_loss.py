"""The output layer is fused with the loss where that gives what the model computes itself."""

import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from benchmarks.architectures import ARCHITECTURES
from data_catalog.format.tokens import IGNORED
from tests.helpers.tiny_models import TOKENS, VOCABULARY, tiny_batch
from trainer.config import Training
from trainer.distributed import Team
from trainer.model.engine import Engine, build_engine
from trainer.model.loss import (
    LanguageLoss,
    has_plain_head,
    positions,
    separates_documents,
)
from trainer.sampling.batches import Batch

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": TOKENS,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
PLAIN = ("llama", "mistral", "qwen3", "olmo2", "gemma", "granite", "gpt_neox", "smollm3")
OTHER = {
    "gemma2": {},  # a soft cap
    "cohere": {},  # a scale
    "phi": {},  # a bias
    "granite": {"logits_scaling": 8.0},
}


def model_of(architecture: str, **settings: object) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **{**SIZES, **settings})
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("architecture", PLAIN)
def test_plain_heads_are_fused(architecture: str) -> None:
    model = model_of(architecture)
    assert has_plain_head(model, tiny_batch(3).inputs)
    assert_own_losses(model)


@pytest.mark.parametrize("architecture", OTHER)
def test_other_heads_are_not(architecture: str) -> None:
    model = model_of(architecture, **OTHER[architecture])
    assert not has_plain_head(model, tiny_batch(3).inputs)
    assert_own_losses(model)


def assert_own_losses(model: PreTrainedModel) -> None:
    batch = tiny_batch(3)
    found = LanguageLoss(model, "float32")(batch.inputs, batch.labels)
    logits = model(input_ids=batch.inputs, use_cache=False).logits
    tokens = functional.cross_entropy(
        logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    assert torch.allclose(found.tokens.flatten(), tokens, atol=1e-5)
    assert torch.allclose(found.total, tokens.sum(), rtol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])  # fused, and not
def test_the_z_loss_is_part_of_the_training_loss_alone(architecture: str) -> None:
    model, batch = model_of(architecture), tiny_batch(3)
    loss = LanguageLoss(model, "float32", z_loss=0.3)
    logits = model(input_ids=batch.inputs, use_cache=False).logits
    normalisers = logits.logsumexp(2)[batch.labels != IGNORED]
    tokens = functional.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="none")
    expected = tokens.sum() + 0.3 * normalisers.square().sum()
    parameters = list(model.parameters())
    found = loss(batch.inputs, batch.labels, True)
    torch.testing.assert_close(found.total, expected)
    torch.testing.assert_close(found.tokens, tokens.detach(), rtol=1e-4, atol=1e-5)
    gradients = (torch.autograd.grad(total, parameters) for total in (found.total, expected))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(loss(batch.inputs, batch.labels).total, tokens.sum())


@pytest.mark.parametrize(
    "architecture", ["llama", "qwen3", "gemma2", "gpt2", "gpt_neox", "mixtral"]
)
def test_documents_of_a_row_do_not_see_each_other(architecture: str) -> None:
    """Loss, gradient and losses without a gradient are those of the documents one by one."""
    engine = engine_of(architecture)
    assert engine.language.separates
    row = torch.tensor([[0, 5, 6, 7, 0, 8, 9, 3, 4, 0, 2, 1]])
    labels = row.roll(-1, 1)
    whole = Batch(row, labels, 12)
    parts = [Batch(row[:, a:b], labels[:, a:b], 12) for a, b in ((0, 4), (4, 9), (9, 12))]
    apart = torch.cat([engine.token_losses(part) for part in parts], 1)
    torch.testing.assert_close(engine.token_losses(whole), apart)
    through = LanguageLoss(engine.model, "float32")(row, labels).tokens
    assert float((through - apart).abs().max()) > 0.01
    engine.backward(whole)
    found = {name: p.grad.clone() for name, p in engine.parameters().items() if p.grad is not None}
    engine.clear()
    for part in parts:
        engine.backward(part)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, engine.parameters()[name].grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mamba"])
@pytest.mark.parametrize("micro", [2, 64])
def test_packed_sequences_have_the_same_losses_and_gradient(architecture: str, micro: int) -> None:
    engine = engine_of(architecture, micro)
    batch = tiny_batch(9)
    packed = engine.packed(batch)
    assert (len(packed.inputs) < 9) == (architecture != "mamba")
    torch.testing.assert_close(engine.losses(packed), engine.losses(batch))
    share, nats = engine.backward(packed)
    found = [p.grad.clone() for p in engine.parameters().values() if p.grad is not None]
    engine.clear()
    expected, expected_nats = engine.backward(batch)
    torch.testing.assert_close(share, expected)
    torch.testing.assert_close(nats, expected_nats)
    wanted = [p.grad for p in engine.parameters().values() if p.grad is not None]
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("architecture", ["mamba", "bloom", "opt", "lfm2", "jamba"])
def test_models_that_mix_documents_are_told_apart(architecture: str) -> None:
    """A convolution of lfm2 and jamba leaks less than a hundredth of the attention."""
    settings = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **settings)).eval()
    assert not separates_documents(model, tiny_batch(3).inputs)


def test_positions_restart_at_each_end_of_text_and_at_each_owner() -> None:
    tokens, owners = torch.tensor([[3, 0, 4, 0, 0, 5, 6]]), torch.tensor([[2, 2, 2, 2, 2, 2, 1]])
    assert positions(tokens, None, 0).tolist() == [[0, 0, 1, 0, 0, 1, 2]]
    assert positions(tokens, owners, 0).tolist() == [[0, 0, 1, 0, 0, 1, 0]]
    assert positions(tokens, owners, None).tolist() == [[0, 1, 2, 3, 4, 5, 0]]


def engine_of(architecture: str, micro: int = 64) -> Engine:
    settings = {key: value for key, value in ARCHITECTURES[architecture].items() if value}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(architecture, **{**settings, "bos_token_id": 0, "eos_token_id": 0})
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return build_engine(model, Training(micro_batch_sequences=micro, sequence_tokens=12), Team())
