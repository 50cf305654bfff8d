"""What a build would read, take and leave behind, before it starts: from the heads of some shards and a short trial of this machine."""

import logging
from collections.abc import Callable, Sequence

from data_catalog.errors import UserError
from data_catalog.format.encoder_identity import Identity
from data_catalog.settings import Settings
from pipeline.cluster.stage import supported_levels
from pipeline.config import Build, Cluster, Dataset, PythonDocs, Rpv2
from pipeline.embed.encoder import load_encoder
from pipeline.embed.identity import identify
from pipeline.planning.heads import (
    HEAD_DOCUMENTS,
    Head,
    Range,
    choose,
    extrapolate,
    parse_seconds,
    read_head,
    size_of,
)
from pipeline.planning.rates import Rates, measure
from pipeline.source.documents import Shard
from pipeline.source.stage import plan
from pipeline.source.targets import read_target

log = logging.getLogger(__name__)

__all__ = ["Estimate", "Range", "estimate"]


class Estimate(Settings):
    """An estimate of a build from nothing, before quality rules and dedup: with these, what follows them is less."""

    shards: int
    """Number of shards."""
    files: int
    """Number of files."""
    bytes: int
    """Total size of the files, as stored."""
    documents: Range
    """Number of documents."""
    characters: Range
    """Number of characters."""
    tokens: Range
    """Number of tokens of the catalog's tokenizer."""
    languages: dict[str, float]
    """Share of documents per language, as stated by the records. An empty name stands for none."""
    shards_read: int
    """Number of shards whose beginning was read."""
    target_documents: int
    """Number of documents of all targets."""
    target_characters: int
    """Number of characters of all targets."""
    encoder: Identity
    """Encoder of the embeddings."""
    encoder_copies: int
    """Number of copies of the encoder, one per device."""
    encoder_documents_per_second: float
    """Speed of the encoder."""
    stage_seconds: dict[str, float]
    """Seconds per stage if stages run one after another on this machine. Stages of negligible
    length are omitted."""
    disk_bytes: dict[str, int]
    """Disk space per folder of `out`/work. The catalog's files are links to files in the last of
    them."""
    granularities: tuple[int, ...]
    """Levels that the documents support."""
    unsupported: tuple[int, ...]
    """Levels with too few documents."""
    training_vectors: int
    """Number of vectors that the tree is trained on."""
    tree_memory_bytes: int
    """Memory of these vectors and of the data that training derives from them."""
    rates: Rates
    """Measured speed of this machine."""
    warnings: tuple[str, ...]
    """Warnings about the estimate."""

    @property
    def seconds(self) -> float:
        return sum(self.stage_seconds.values())

    @property
    def disk(self) -> int:
        return sum(self.disk_bytes.values())


def estimate(config: Build, on_progress: Callable[[int, int], None] | None = None) -> Estimate:
    """Read the heads of up to 32 shards, embed and tokenize some of their documents, and extrapolate. Writes nothing.

    Args:
        on_progress: called with the steps done and all of them: a step a head, and one to time this machine.

    Raises:
        UserError: what `pipeline.run.check_request` refuses; or no text could be read.
    """
    shards = plan(config)
    chosen = choose(shards)
    steps = len(chosen) + 1
    heads = []
    for i in chosen:
        heads.append(read_head(shards[i], config))
        if on_progress:
            on_progress(len(heads), steps)
    texts = [text for head in heads for text in head.texts]
    if not texts:
        raise UserError(
            f"source: no text in the first documents of {len(chosen)} of {len(shards)} files; are they what source.kind says?"
        )
    sizes = [size_of(shard) for shard in shards]
    documents = extrapolate(
        heads, [head.records for head in heads], [head.error(head.counted) for head in heads], sizes
    )
    characters = extrapolate(
        heads, [head.characters for head in heads], [head.error() for head in heads], sizes
    )
    targets = [
        text
        for target in config.all_targets()
        for text in read_target(target, config)[0]["text"].to_pylist()
    ]
    rates = measure(texts, config)
    if on_progress:
        on_progress(steps, steps)
    reading = _reading_seconds(shards, [shards[i] for i in chosen], heads, config)
    granularities, warnings = _levels(documents, config.cluster)
    vectors = min(documents.likely, config.cluster.sample or documents.likely)
    copies = len(load_encoder(config.embed).models)
    identity = identify(config.embed)
    inputs = {
        (str(shard.root), entry.path): entry.bytes for shard in shards for entry in shard.inputs
    }
    return Estimate(
        shards=len(shards),
        files=len(inputs),
        bytes=sum(inputs.values()),
        documents=documents,
        characters=characters,
        tokens=_scaled(characters, rates.tokens),
        languages=_languages(heads),
        shards_read=len(chosen),
        target_documents=len(targets),
        target_characters=sum(map(len, targets)),
        encoder=identity,
        encoder_copies=copies,
        encoder_documents_per_second=1 / (rates.encoder_tokens * rates.encode_seconds),
        stage_seconds=_stage_seconds(
            config,
            shards,
            documents.likely,
            characters.likely,
            targets,
            vectors,
            granularities,
            rates,
            reading,
        ),
        disk_bytes=_disk(documents.likely, characters.likely, targets, identity, rates),
        granularities=granularities,
        unsupported=tuple(k for k in config.cluster.granularities if k not in granularities),
        training_vectors=vectors,
        tree_memory_bytes=vectors
        * identity.dimension
        * 4
        * 2,  # float32, and the part of them that one sub-tree trains on
        rates=rates,
        warnings=(*warnings, *_remarks(config, shards)),
    )


def _scaled(amount: Range, factor: float) -> Range:
    return Range(
        low=round(amount.low * factor),
        likely=round(amount.likely * factor),
        high=round(amount.high * factor),
    )


def _languages(heads: Sequence[Head]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for head in heads:
        for language in head.languages:
            weights[language] = weights.get(language, 0.0) + head.records / len(head.languages)
    total = sum(weights.values())
    return {
        language: weight / total
        for language, weight in sorted(weights.items(), key=lambda item: -item[1])
    }


def _reading_seconds(
    shards: Sequence[Shard], read: Sequence[Shard], heads: Sequence[Head], config: Build
) -> float:
    """Of the source stage, without writing: in proportion to the bytes or documents of the heads; and of rpv2's quality signals."""
    whole = sum(head.seconds / head.share for head in heads if head.share)
    side = 0.0
    if isinstance(config.source, Rpv2):
        signals = [
            shard.root / entry.path
            for shard in read
            for entry in shard.inputs
            if entry.path.startswith("quality_signals/")
        ]
        few = signals[:: max(len(signals) // 4, 1)]
        side = sum(map(parse_seconds, few)) / max(len(few), 1) * len(signals)
    return (whole + side) * sum(map(size_of, shards)) / max(sum(map(size_of, read)), 1)


def _stage_seconds(
    config: Build,
    shards: Sequence[Shard],
    documents: int,
    characters: int,
    targets: Sequence[str],
    vectors: int,
    granularities: Sequence[int],
    rates: Rates,
    reading: float,
) -> dict[str, float]:
    ratios = [
        fine // coarse for coarse, fine in zip((1, *granularities), granularities, strict=False)
    ]
    searched = sum(ratio * (config.cluster.beam if i else 1) for i, ratio in enumerate(ratios))
    target_characters = sum(map(len, targets))

    def without(component: str) -> float:
        """Share of the corpus, by size, for which the source has no such files: only RedPajama-V2 ships any."""
        bare = [
            shard
            for shard in shards
            if not any(
                file.path.startswith(f"{component}/") for file in (*shard.inputs, *shard.beside)
            )
        ]
        return sum(map(size_of, bare)) / max(sum(map(size_of, shards)), 1)

    return {
        "source": reading + characters * rates.write_seconds,
        "quality": characters * rates.signal_seconds * without("quality_signals"),
        "sign": characters * rates.sign_seconds * without("minhash"),
        "embed": documents * rates.encoder_tokens * rates.encode_seconds,
        "tree": vectors * sum(ratios) * config.cluster.iterations * rates.cosine_seconds,
        "assign": documents * searched * rates.cosine_seconds,
        "sort": characters * (rates.tokenize_seconds + rates.write_seconds),
        "shard": characters * rates.write_seconds,
        "targets": len(targets) * _encoder_tokens(targets, config) * rates.encode_seconds
        + target_characters * (rates.tokenize_seconds + rates.write_seconds),
    }


def _encoder_tokens(texts: Sequence[str], config: Build) -> float:
    """Of a text, on average over some that lie evenly among them."""
    few = texts[:: max(len(texts) // 512, 1)]
    return int(load_encoder(config.embed).reader.read(few).lengths.sum()) / max(len(few), 1)


def _disk(
    documents: int, characters: int, targets: Sequence[str], identity: Identity, rates: Rates
) -> dict[str, int]:
    text = characters * rates.text_bytes
    tokens = characters * rates.tokens
    target = sum(map(len, targets))
    return {
        "source": round(text),
        "embed": documents * identity.dimension * 2,
        "sort": round(text + tokens * rates.token_bytes),
        "shard": round(text + tokens * rates.token_width),
        "targets": round(target * (rates.text_bytes + rates.tokens * rates.token_width)),
    }


def _levels(documents: Range, config: Cluster) -> tuple[tuple[int, ...], list[str]]:
    """The levels that would be built, and sentences about the others."""
    built, requested = supported_levels(documents.likely, config), config.granularities
    warnings = []
    if missing := next((k for k in requested if documents.likely < k * config.min_points), None):
        then = (
            "the build will be refused"
            if config.unsupported == "refuse"
            else f"the tree will end at {built[-1]}"
        )
        warnings.append(
            f"cluster.granularities {list(requested)}: level {missing} needs {missing * config.min_points:,} documents "
            f"(cluster.min_points), there are about {documents.likely:,}: {then}"
        )
    elif documents.low < built[-1] * config.min_points:
        warnings.append(
            f"cluster.granularities {list(requested)}: perhaps too few documents for level {built[-1]}"
        )
    return built, warnings


def _remarks(config: Build, shards: Sequence[Shard]) -> list[str]:
    if isinstance(config.source, Dataset):
        return [
            f"a data set does not say how many documents it has: this is for the first {HEAD_DOCUMENTS} of each of {len(shards)} shards"
        ]
    if isinstance(config.source, PythonDocs):
        return ["python-docs: source.max_documents is a cap; packages may have fewer"]
    return []
