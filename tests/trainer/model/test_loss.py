"""The output layer is fused with the loss where that gives what the model computes itself."""

import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from data_catalog.format.tokens import IGNORED
from tests.helpers.tiny_models import TOKENS, VOCABULARY, tiny_batch
from trainer.model.loss import LanguageLoss, has_plain_head

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
