"""Small causal models of several architectures, for tests of gradients."""

import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from data_catalog.format.tokens import IGNORED
from trainer.config import Training
from trainer.distributed import Team
from trainer.model.engine import Engine
from trainer.model.loss import LanguageLoss
from trainer.sampling.batches import Batch

VOCABULARY, WIDTH, TOKENS = 61, 32, 12
ARCHITECTURES = (
    "llama",
    "gpt2",
    "qwen2",
    "qwen3",
    "gpt_neox",
)  # qwen2 has biases on its attention, qwen3 norms inside it


def tiny_model(architecture: str = "llama", *, tied: bool = True, seed: int = 0) -> PreTrainedModel:
    """Return a model with two layers of width 32, in float32 and evaluation mode, without dropout.

    Noise is added to every parameter, including norms and biases.
    """
    with torch.random.fork_rng():
        torch.random.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(_config(architecture, tied))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.train(mode=False)
    return model


def _config(architecture: str, tied: bool) -> PreTrainedConfig:
    ends = {"bos_token_id": 0, "eos_token_id": 0, "use_cache": False, "tie_word_embeddings": tied}
    if architecture == "gpt2":
        sizes = {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": TOKENS}
        return GPT2Config(
            vocab_size=VOCABULARY, **sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **ends
        )
    sizes = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "intermediate_size": 48,
        "max_position_embeddings": TOKENS,
    }
    if architecture == "gpt_neox":
        return GPTNeoXConfig(vocab_size=VOCABULARY, **sizes, num_attention_heads=2, **ends)
    kind = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}[architecture]
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return kind(vocab_size=VOCABULARY, **sizes, **heads, head_dim=WIDTH // 4, **ends)


def tiny_engine(
    model: PreTrainedModel, *, micro: int = 64, precision: str = "float32", team: Team | None = None
) -> Engine:
    """`model` in one process, `micro` sequences at a time."""
    training = Training(micro_batch_sequences=micro, precision=precision, sequence_tokens=TOKENS)
    return Engine(model, LanguageLoss(model, precision), team or Team(), training)


def tiny_batch(sequences: int = 7, *, seed: int = 1) -> Batch:
    """Return random tokens. Every second sequence ends in padding of growing length."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, VOCABULARY, (sequences, TOKENS + 1), generator=generator)
    inputs, labels = tokens[:, :-1].clone(), tokens[:, 1:].clone()
    for row in range(1, sequences, 2):
        labels[row, TOKENS - 1 - row % (TOKENS - 2) :] = IGNORED
    return Batch(inputs, labels, int((labels != IGNORED).sum()))
