"""The language model, made for the tokens of a catalog, by transformers."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)
from transformers.utils import logging as transformers_logging

from data_catalog.errors import UserError
from trainer.config import Model
from trainer.model.born_sharded import Shards
from trainer.model.fit import check_sizes
from trainer.model.pretrained import read_shards

# Number of layers, hidden size and number of heads. The sizes are those of the GPT-2 family.
MODEL_PRESETS = {
    "tiny": (4, 128, 4),
    "125m": (12, 768, 12),
    "350m": (24, 1024, 16),
    "750m": (36, 1280, 20),
}


def build_model(
    config: Model,
    vocabulary: int,
    end_of_text: int,
    sequence_tokens: int,
    seed: int,
    shards: Shards | None = None,
) -> PreTrainedModel:
    """Return a model for the catalog's tokens, in fp32 on the CPU, in evaluation mode.

    It stays in evaluation mode while training. This turns dropout off, so that there is no random
    state to save or to keep equal over processes. Attention is as transformers chooses: torch's
    fused one (SDPA) where the architecture has it. Code that comes with a checkpoint never runs.
    The config's special tokens become `end_of_text`.

    Args:
        config: the model settings.
        vocabulary: number of token ids.
        end_of_text: id of the end-of-text token.
        sequence_tokens: maximum number of tokens per sequence.
        seed: seed of random weights.
        shards: keep the rows of this process of the same weights. The parameters of the model are
            then on the meta device, and no process ever holds more than one whole parameter.

    Raises:
        NotShardableError: There are `shards`, but this model must be built whole.
        UserError: The sizes do not fit each other, there is no model at `path`, or it has too few
            positions or token embeddings.
    """
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(), shards.recording() if shards else nullcontext():
        torch.random.manual_seed(seed)
        if config.path is None:
            preset = preset_config(config, vocabulary, sequence_tokens)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(preset)  # type: ignore[no-untyped-call]
        else:
            model = _from_path(config.path, vocabulary, sequence_tokens, shards)
    _describe_tokens(model, end_of_text)
    model.train(mode=False)
    return model


def _describe_tokens(model: PreTrainedModel, end_of_text: int) -> None:
    """Make the configs of `model` say what it is trained on, whatever its checkpoint was.

    In the catalog's tokens, `end_of_text` closes each document, precedes the next, and pads
    sequences. Every token is trained, also one that the checkpoint's config calls padding.
    """
    ids = {"bos_token_id": end_of_text, "eos_token_id": end_of_text}
    if not _pads_by_id(model):
        ids["pad_token_id"] = end_of_text
    for config in (model.config, model.config.get_text_config(), model.generation_config):
        for name, value in {**ids, "use_cache": True}.items() if config is not None else ():
            setattr(config, name, value)
    table = model.get_input_embeddings()
    if isinstance(table, nn.Embedding):
        table.padding_idx = None


def _pads_by_id(model: PreTrainedModel) -> bool:
    """Return whether the id of the padding changes the model's output.

    RoBERTa and its relatives give a padding token another position than other tokens.
    """
    return any(
        getattr(module, "padding_idx", None) is not None
        for module in model.modules()
        if not isinstance(module, nn.Embedding | PreTrainedModel)
    )


def preset_sizes(config: Model) -> tuple[int, int, int]:
    """Return layers, hidden size and heads of a model without a path.

    Raises:
        UserError: The hidden size does not fit the number of heads.
    """
    layers, hidden, heads = MODEL_PRESETS[config.preset]
    layers, hidden, heads = (
        config.layers or layers,
        config.hidden_size or hidden,
        config.heads or heads,
    )
    if hidden % (2 * heads):
        raise UserError(
            f"model.hidden_size {hidden}: Not divisible into {heads} heads of even size. "
            "Change model.hidden_size or model.heads."
        )
    return layers, hidden, heads


def preset_config(
    config: Model, vocabulary: int, sequence_tokens: int
) -> LlamaConfig | Qwen3Config:
    """Return the config of transformers of a model without a path.

    Raises:
        UserError: The hidden size does not fit the number of heads, or two heads cannot share keys.
    """
    layers, hidden, heads = preset_sizes(config)
    shares = config.architecture == "qwen3"
    if shares and heads % 2:
        raise UserError(
            f"model.heads {heads}: With model.architecture qwen3, two heads share keys and values. "
            "Use an even number."
        )
    return (Qwen3Config if shares else LlamaConfig)(
        vocab_size=vocabulary,
        head_dim=hidden // heads,
        hidden_size=hidden,
        # A gated layer has three matrices, hence 8/3 instead of 4 times the width.
        intermediate_size=-(-hidden * 8 // 3 // 64) * 64,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2 if shares else heads,
        max_position_embeddings=sequence_tokens,
        tie_word_embeddings=True,
    )


def _from_path(
    path: str, vocabulary: int, sequence_tokens: int, shards: Shards | None
) -> PreTrainedModel:
    """Load a checkpoint, or create random weights if `path` is a config.json.

    Random weights know no more positions than a sequence has. Where positions are computed and not
    stored, the config says so.
    """
    fresh = Path(path).is_file()
    options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": False}
    model: PreTrainedModel
    try:
        if fresh:
            config = AutoConfig.from_pretrained(path, trust_remote_code=False)
            model = AutoModelForCausalLM.from_config(config, **options)  # type: ignore[no-untyped-call]
            _limit_positions(model.config.get_text_config(), sequence_tokens)
        elif shards:
            model = read_shards(path, options, shards)
        else:
            model = AutoModelForCausalLM.from_pretrained(path, **options)
    except (OSError, ValueError) as error:
        place = "file" if fresh else "folder" if Path(path).is_dir() else "name on the hub"
        raise UserError(
            f"model.path {path}: There is no causal language model in this {place} ({error})."
        ) from error
    check_sizes("model.path", path, model.config, vocabulary, sequence_tokens)
    return model


def _limit_positions(config: PreTrainedConfig, sequence_tokens: int) -> None:
    """Set the number of positions of a model with plain rotary embeddings, which has no table."""
    rotary = getattr(config, "rope_parameters", None) or {}
    if rotary.get("rope_type") == "default" and hasattr(config, "max_position_embeddings"):
        config.max_position_embeddings = sequence_tokens
