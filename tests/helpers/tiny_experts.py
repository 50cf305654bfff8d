"""Small mixtures of experts, in which several tokens go to every expert."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.helpers.tiny_models import TOKENS, VOCABULARY, WIDTH

EXPERTS, PER_TOKEN = 4, 2
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
    "max_position_embeddings": TOKENS,
    "num_experts_per_tok": PER_TOKEN,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_OWN = {
    "olmoe": {"num_experts": EXPERTS, "num_key_value_heads": 2},
    "mixtral": {"num_local_experts": EXPERTS, "num_key_value_heads": 2},
    "deepseek_v3": {
        "n_routed_experts": EXPERTS,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
    "deepseek_v2": {
        "n_routed_experts": EXPERTS,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
}


def tiny_experts(
    architecture: str = "olmoe", *, noise: float = 0.1, **sizes: int
) -> PreTrainedModel:
    """Return a model with four experts per layer, of which a token uses two.

    Noise is added to every parameter. The config is changed by `sizes`.
    """
    config = AutoConfig.for_model(architecture, **{**_SIZES, **_OWN[architecture], **sizes})
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * noise)
    model.train(mode=False)
    return model
