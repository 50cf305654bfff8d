"""The trial of a model before its training."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, BertConfig

from data_catalog.errors import UserError
from tests.helpers.tiny_experts import tiny_experts
from tests.helpers.tiny_models import TOKENS, VOCABULARY, tiny_engine, tiny_model
from trainer.alignment.trial import try_model


class BypassedLinear(nn.Module):
    """A module that uses a layer's weight without calling the layer."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.inner.weight)


@pytest.mark.parametrize("backend", ["ghost", "exact", "finite_difference", None])
def test_a_trial_leaves_the_model_and_the_random_numbers_alone(backend: str | None) -> None:
    model = tiny_model()
    engine, random = tiny_engine(model), torch.get_rng_state()
    before = {name: p.clone() for name, p in model.named_parameters()}
    try_model(engine, "tiny", backend)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_a_model_that_the_backend_cannot_score_is_refused() -> None:
    model = tiny_model()
    mlp = model.model.layers[0].mlp
    mlp.down_proj = BypassedLinear(mlp.down_proj)
    with pytest.raises(UserError, match=r"layers\.0\.mlp\.down_proj.*\"finite_difference\""):
        try_model(tiny_engine(model), "tiny", "ghost")
    try_model(tiny_engine(model), "tiny", "exact")


def test_experts_are_tried() -> None:
    for backend in ("ghost", "exact", None):
        try_model(tiny_engine(tiny_experts()), "olmoe", backend)
    with pytest.raises(UserError, match=r'"finite_difference": .*olmoe.*"ghost"'):
        try_model(tiny_engine(tiny_experts()), "olmoe", "finite_difference")
    with pytest.raises(UserError, match=r"model\.path here: .*DeepseekV2"):
        try_model(tiny_engine(tiny_experts("deepseek_v2")), "here", "ghost")


def test_a_model_that_sees_later_tokens_is_refused() -> None:
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": TOKENS,
    }
    for causal in (True, False):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(BertConfig(**sizes, is_decoder=causal)).eval()
        if causal:
            try_model(tiny_engine(model), "bert", None)
            continue
        with pytest.raises(UserError, match=r"model\.path bert: .*causal"):
            try_model(tiny_engine(model), "bert", None)


def test_the_error_of_a_models_own_code_is_one_sentence() -> None:
    model = tiny_model()
    model.model.layers[1].mlp.down_proj = nn.Linear(7, 7)
    with pytest.raises(UserError, match=r"model\.path odd: .*shapes cannot be multiplied"):
        try_model(tiny_engine(model), "odd", None)
