"""Speed of this machine at each kind of work, measured on a sample of the documents."""

import io
from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.settings import Settings
from pipeline.config import Build, Cluster
from pipeline.dedup.signatures import sign
from pipeline.embed.encoder import load_encoder
from pipeline.quality.signals.measure import measure_signals
from pipeline.shard.tokenize import _load_tokenizer, _train, largest_id

_ENCODED_DOCUMENTS = 96
_WARM_UP_DOCUMENTS = 16  # embedded before measuring, because first use compiles kernels
_MEASURED_DOCUMENTS = 1_024  # documents whose encoder tokens are counted
_TOKENIZED_CHARACTERS = 1_000_000
_SIGNED_CHARACTERS = 100_000  # characters whose signals and signatures are computed
_SAMPLING_KEY = 11  # second word of the random generator's key
_VECTORS = 8_192  # vectors compared with each centroid
_CENTROIDS = 64


class MachineRates(Settings):
    """Seconds and bytes per unit of work, with the whole machine at work."""

    encoder_tokens: float
    """Encoder tokens per document."""
    encode_seconds: float
    """Seconds per encoder token."""
    tokens: float
    """Tokens of the catalog's tokenizer per character."""
    tokenize_seconds: float
    """Seconds of tokenization per character."""
    text_bytes: float
    """Bytes per character in compressed Parquet."""
    token_bytes: float
    """Bytes per token in compressed Parquet."""
    token_width: int
    """Bytes per token in the token store."""
    write_seconds: float
    """Seconds per character for writing compressed Parquet."""
    signal_seconds: float
    """Seconds per character for computing quality signals. 0 if the config computes none."""
    sign_seconds: float
    """Seconds per character for computing MinHash signatures. 0 if the config computes none."""
    cosine_seconds: float
    """Seconds per product of a vector and a centroid."""


def measure_rates(texts: Sequence[str], config: Build) -> MachineRates:
    """Measure the rates on a random sample of the texts.

    This takes some seconds, mostly to load the encoder.

    Raises:
        UserError: See `pipeline.embed.encoder.load_encoder` and `pipeline.shard.tokenize`.
    """
    order = np.random.Generator(
        np.random.Philox(key=np.array([config.seed % 2**64, _SAMPLING_KEY], np.uint64))
    ).permutation(len(texts))
    chosen = [texts[i] for i in order]
    encoder = load_encoder(config.embed)
    read = encoder.reader.read(chosen[:_MEASURED_DOCUMENTS])
    encoder.encode(chosen[:_WARM_UP_DOCUMENTS])
    encoded = chosen[:_ENCODED_DOCUMENTS]
    encode = _seconds(lambda: encoder.encode(encoded)) / max(
        int(encoder.reader.read(encoded).lengths.sum()), 1
    )
    sample = _first_characters(chosen, _TOKENIZED_CHARACTERS)
    characters, half = max(sum(map(len, sample)), 1), max(sum(map(len, sample[::2])), 1)
    ids, tokenize = _tokenize(sample, config)
    text_bytes, write = _written(pa.table({"text": sample}))
    token_bytes, write_tokens = _written(pa.table({"ids": ids}))
    tokens = max(len(ids.flatten()), 1)
    signed = _first_characters(chosen, _SIGNED_CHARACTERS)
    signed_characters = max(sum(map(len, signed)), 1)
    return MachineRates(
        encoder_tokens=int(read.lengths.sum()) / max(min(len(chosen), _MEASURED_DOCUMENTS), 1),
        encode_seconds=encode / len(encoder.models),
        tokens=tokens / half,
        tokenize_seconds=tokenize / half,
        text_bytes=text_bytes / characters,
        token_bytes=token_bytes / tokens,
        token_width=ids.type.value_type.bit_width // 8,
        write_seconds=write / characters + write_tokens / half,
        signal_seconds=_seconds(lambda: measure_signals(signed)) / signed_characters
        if config.quality.compute == "missing"
        else 0.0,
        sign_seconds=_seconds(lambda: list(sign(signed, config.dedup.similarity)))
        / signed_characters
        if "minhash" in config.dedup.tiers
        else 0.0,
        cosine_seconds=_cosine(encoder.identity.dimension),
    )


def tree_seconds(
    config: Cluster, granularities: Sequence[int], vectors: int, cosine_seconds: float
) -> float:
    """Return the seconds that training a tree takes.

    Args:
        config: The number of iterations.
        granularities: Number of domains per level.
        vectors: Number of vectors that are trained on.
        cosine_seconds: Seconds per product of a vector and a centroid.
    """
    return vectors * sum(children(granularities)) * config.iterations * cosine_seconds


def children(granularities: Sequence[int]) -> list[int]:
    """Return the number of children of each domain of the level above, from coarse to fine."""
    return [
        fine // coarse for coarse, fine in zip((1, *granularities), granularities, strict=False)
    ]


def _seconds(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def _first_characters(texts: Sequence[str], characters: int) -> list[str]:
    """Return the first texts up to a total number of characters. The last one is cut."""
    chosen: list[str] = []
    for text in texts:
        if characters <= 0:
            break
        chosen.append(text[:characters])
        characters -= len(chosen[-1])
    return chosen


def _tokenize(sample: Sequence[str], config: Build) -> tuple[pa.ListArray, float]:
    """Return the token ids of one half of the sample, and the seconds that took.

    A tokenizer that the config does not name is trained on the other half.
    """
    if config.tokenizer.path:
        tokenizer = _load_tokenizer(config.tokenizer.path).backend_tokenizer
    else:
        tokenizer = _train(iter(sample[1::2]), config.tokenizer.vocabulary)
    started = perf_counter()
    encoded = tokenizer.encode_batch_fast(list(sample[::2]), add_special_tokens=False)
    seconds = perf_counter() - started
    kind = pa.uint16() if largest_id(tokenizer) < 2**16 else pa.uint32()
    return pa.array([encoding.ids for encoding in encoded], pa.list_(kind)), seconds


def _written(table: pa.Table) -> tuple[int, float]:
    """Write a table as compressed Parquet in memory, and return the bytes and seconds."""
    buffer = io.BytesIO()
    seconds = _seconds(lambda: pq.write_table(table, buffer, compression="zstd"))
    return buffer.tell(), seconds


def _cosine(dimension: int) -> float:
    generator = np.random.Generator(np.random.Philox(key=0))
    vectors = generator.standard_normal((_VECTORS, dimension), np.float32)
    seconds = _seconds(lambda: (vectors @ vectors[:_CENTROIDS].T).argmax(axis=1))
    return seconds / (_VECTORS * _CENTROIDS)
