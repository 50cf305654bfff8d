"""Embedding: documents and tokens per second, and the share of the bfloat16 limit."""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from benchmarks.embed_gpu import measure
from benchmarks.gpu.rows import Part
from pipeline.config import Embed
from pipeline.embed.encoder import Encoder, load_encoder
from pipeline.embed.identity import MINILM_PACKAGE, locate_model

DISTINCT = 4_096  # documents; more are repetitions
WORDS = (24, 360)  # per document; longer ones are cut to a window of the encoder
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


@dataclass(frozen=True)
class Sizes:
    documents: int
    rounds: int


SIZES = {"cpu": Sizes(documents=16, rounds=1), "gpu": Sizes(documents=32_768, rounds=5)}


def run(part: Part) -> None:
    sizes = SIZES[part.scale]
    config, weights = encoder_config(part)
    encoder = load_encoder(config)
    distinct = texts(encoder, min(sizes.documents, DISTINCT))
    documents = (distinct * -(-sizes.documents // len(distinct)))[: sizes.documents]
    shape = json.loads((locate_model(config.model) / "config.json").read_text(encoding="utf-8"))
    result = measure(encoder, shape, documents, sizes.rounds)
    model = encoder.models[0]
    part.record(
        "matrix products of a layer",
        f"the limit: bfloat16, {model.batch_tokens:,} tokens, {len(encoder.models)} device(s)",
        TFLOP_per_s=result.limit / 1e12,
    )
    for rate in result.rates:
        part.record(
            rate.name,
            f"{weights}, {encoder.identity.precision}, {len(documents):,} documents of "
            f"{result.lengths.mean():.0f} tokens, median of {sizes.rounds}",
            tokens_per_s=rate.tokens_per_second,
            documents_per_s=rate.documents_per_second,
            TFLOP_per_s=rate.operations_per_second / 1e12,
            share_of_the_bf16_limit=rate.share,
        )


def encoder_config(part: Part) -> tuple[Embed, str]:
    """Return the config of the encoder, and where its weights are from."""
    if part.encoder is not None:
        return Embed(model=str(part.encoder)), "the weights in --encoder"
    if find_spec(MINILM_PACKAGE) is not None:
        return Embed(), "all-MiniLM-L6-v2"
    return Embed(model=str(random_encoder(part.scratch / "encoder"))), "RANDOM weights"


def texts(encoder: Encoder, count: int) -> list[str]:
    """Return texts of random words, each of which is one token."""
    vocabulary = sorted(encoder.reader.tokenizer.get_vocab())
    words = [word for word in vocabulary if word.isascii() and word.isalnum()]
    random = np.random.Generator(np.random.Philox(key=1))
    lengths = random.integers(*WORDS, count)
    return [" ".join(words[i] for i in random.integers(len(words), size=n)) for n in lengths]


def random_encoder(folder: Path) -> Path:
    """Write an encoder with the sizes of all-MiniLM-L6-v2 and random weights."""
    vocabulary = {token: i for i, token in enumerate(_SPECIAL)}
    config = BertConfig(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1_536,
    )
    for number in range(config.vocab_size - len(vocabulary)):
        vocabulary[f"w{number}"] = len(vocabulary)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(token, vocabulary[token]) for token in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.BertProcessing(*ends)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", model_max_length=512
    ).save_pretrained(folder)
    BertModel(config).save_pretrained(folder)
    names = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(names.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    for name in ("1_Pooling", "2_Normalize"):
        (folder / name).mkdir()
    pooling = {"word_embedding_dimension": config.hidden_size, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    return folder
