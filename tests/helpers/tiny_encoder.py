"""A sentence encoder of one small layer, which can fail for texts with a bad word."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_WIDTH = 16
_MODULES = (("", "Transformer"), ("1_Pooling", "Pooling"))


def write_encoder(
    folder: Path,
    words: Iterable[str],
    *,
    bad_word: str = "",
    value: float = 0.0,
    unknown: str = "[UNK]",
) -> Path:
    """Write an encoder of some words and return its folder.

    Args:
        folder: The folder.
        words: The words.
        bad_word: A further word.
        value: All values of its vector, such as NaN.
        unknown: Token of other words. If there is no such token, the tokenizer refuses them.
    """
    tokens = [*_SPECIAL, *words, bad_word]
    vocabulary = {word: i for i, word in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", model_max_length=64
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=_WIDTH,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        model = BertModel(config)
    with torch.no_grad():
        vectors = model.embeddings.word_embeddings.weight
        vectors.mul_(50)  # or all texts would be alike
        if bad_word:
            vectors[-1] = value
    model.save_pretrained(folder)
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(_MODULES)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": _WIDTH, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder
