"""How fast this machine is at each kind of work, measured in seconds on a sample of the documents themselves."""

import io
from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.settings import Settings
from pipeline.config import Build
from pipeline.dedup.signatures import sign
from pipeline.embed.encoder import load_encoder
from pipeline.quality.signals.measure import measure_signals
from pipeline.shard.tokenize import _load_given, _train

ENCODED = 96  # documents that are embedded to learn the rate
WARM_UP = 16  # of them first: kernels are compiled at their first use
TOKENIZED_CHARACTERS = 1_000_000
SIGNED_CHARACTERS = 100_000  # whose signals and signatures are computed
SAMPLING = 11  # what randomness is for: second word of the generator's key
POINTS = 8_192  # vectors whose nearest of 64 centroids are looked for


class Rates(Settings):
    """Seconds and bytes for a unit of work, with the whole machine at it."""

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


def measure(texts: Sequence[str], config: Build) -> Rates:
    """Rates on these texts, which are not in any order that matters; takes some seconds, most of them to load the encoder.

    Raises:
        UserError: see `pipeline.embed.encoder.load_encoder` and `pipeline.shard.tokenize`.
    """
    order = np.random.Generator(
        np.random.Philox(key=np.array([config.seed % 2**64, SAMPLING], np.uint64))
    ).permutation(len(texts))
    chosen = [texts[i] for i in order]
    encoder = load_encoder(config.embed)
    read = encoder.reader.read(chosen[:1024])
    encoder.encode(chosen[:WARM_UP])
    encoded = chosen[:ENCODED]
    encode = _seconds(lambda: encoder.encode(encoded)) / max(
        int(encoder.reader.read(encoded).lengths.sum()), 1
    )
    sample = _until(chosen, TOKENIZED_CHARACTERS)
    characters, half = max(sum(map(len, sample)), 1), max(sum(map(len, sample[::2])), 1)
    ids, tokenize = _tokenize(sample, config)
    text_bytes, write = _written(pa.table({"text": sample}))
    token_bytes, write_tokens = _written(pa.table({"ids": ids}))
    tokens = max(len(ids.flatten()), 1)
    few = _until(chosen, SIGNED_CHARACTERS)
    spoken = max(sum(map(len, few)), 1)
    return Rates(
        encoder_tokens=int(read.lengths.sum()) / max(min(len(chosen), 1024), 1),
        encode_seconds=encode / len(encoder.models),
        tokens=tokens / half,
        tokenize_seconds=tokenize / half,
        text_bytes=text_bytes / characters,
        token_bytes=token_bytes / tokens,
        token_width=ids.type.value_type.bit_width // 8,
        write_seconds=write / characters + write_tokens / half,
        signal_seconds=_seconds(lambda: measure_signals(few)) / spoken
        if config.quality.compute == "missing"
        else 0.0,
        sign_seconds=_seconds(lambda: list(sign(few, config.dedup.similarity))) / spoken
        if "minhash" in config.dedup.tiers
        else 0.0,
        cosine_seconds=_cosine(encoder.identity.dimension),
    )


def _seconds(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def _until(texts: Sequence[str], characters: int) -> list[str]:
    """The first texts, up to about so many characters; a long one is cut."""
    found: list[str] = []
    for text in texts:
        if characters <= 0:
            break
        found.append(text[:characters])
        characters -= len(found[-1])
    return found


def _tokenize(sample: Sequence[str], config: Build) -> tuple[pa.ListArray, float]:
    """Token ids of one half of the sample, and the seconds they took; a tokenizer that is not given is trained on the other half."""
    if config.tokenizer.path:
        tokenizer = _load_given(config.tokenizer.path).backend_tokenizer
    else:
        tokenizer = _train(iter(sample[1::2]), config.tokenizer.vocabulary)
    started = perf_counter()
    encoded = tokenizer.encode_batch_fast(list(sample[::2]), add_special_tokens=False)
    seconds = perf_counter() - started
    kind = pa.uint16() if tokenizer.get_vocab_size() <= 2**16 else pa.uint32()
    return pa.array([encoding.ids for encoding in encoded], pa.list_(kind)), seconds


def _written(table: pa.Table) -> tuple[int, float]:
    """Bytes and seconds of a table as compressed Parquet, in memory."""
    place = io.BytesIO()
    seconds = _seconds(lambda: pq.write_table(table, place, compression="zstd"))
    return place.tell(), seconds


def _cosine(dimension: int) -> float:
    generator = np.random.Generator(np.random.Philox(key=0))
    x = generator.standard_normal((POINTS, dimension), np.float32)
    return _seconds(lambda: (x @ x[:64].T).argmax(axis=1)) / (POINTS * 64)
