"""Estimate of a build before it starts, from the heads of some shards and a trial of this machine.

Nothing is written.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from data_catalog.errors import UserError
from data_catalog.format.encoder_identity import Identity
from data_catalog.settings import Settings
from pipeline.cluster.stage import supported_levels
from pipeline.config import Build, Cluster, Embed
from pipeline.dedup.bands import bands_disk
from pipeline.embed.encoder import load_encoder
from pipeline.embed.identity import identify
from pipeline.planning.heads import EstimatedCount, choose_shards, extrapolate, seconds_to_parse
from pipeline.planning.rates import MachineRates, children, measure_rates, tree_seconds
from pipeline.run import check_request
from pipeline.source.documents import Fault, Shard
from pipeline.source.head import Head
from pipeline.source.interface import Source
from pipeline.source.registry import corpus_source
from pipeline.source.targets import read_target, skipped_targets

logger = logging.getLogger(__name__)

__all__ = ["Estimate", "EstimatedCount", "estimate_build"]

_SIDE_FILES = 4  # side files parsed to measure their rate


class Note(Settings):
    """Files or records with one reason."""

    reason: str
    """Reason, as in the views `accounting` and `quarantine` of a catalog."""
    number: int
    """Number of files or records."""
    example: str
    """Name of the first file."""
    detail: str
    """Sentence about the first file."""


class Estimate(Settings):
    """An estimate of a build from nothing, before quality rules and dedup.

    With these, the stages that follow them have less to do.
    """

    shards: int
    """Number of shards."""
    files: int
    """Number of files."""
    bytes: int
    """Total size of the files, as stored."""
    documents: EstimatedCount
    """Number of documents."""
    characters: EstimatedCount
    """Number of characters."""
    tokens: EstimatedCount
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
    rates: MachineRates
    """Measured speed of this machine."""
    unread: tuple[Note, ...]
    """Files below the source's path that are not read, by reason."""
    faults: tuple[Note, ...]
    """Records that cannot be read, in the beginnings that were read, and notes on the others."""
    warnings: tuple[str, ...]
    """Warnings about the estimate."""

    @property
    def seconds(self) -> float:
        return sum(self.stage_seconds.values())

    @property
    def disk(self) -> int:
        return sum(self.disk_bytes.values())


def estimate_build(
    config: Build, on_progress: Callable[[int, int], None] | None = None
) -> Estimate:
    """Estimate a build from the heads of up to 32 shards and a trial of this machine.

    Args:
        config: The build's config.
        on_progress: Called with the number of finished steps and the number of all steps. Each
            head is a step, and the trial of the machine is one.

    Raises:
        UserError: `pipeline.run.check_request` rejects the config, or no text could be read.
    """
    inventory = check_request(config)
    source = corpus_source(config)
    shards = inventory.shards
    sizes = [source.size(shard) for shard in shards]
    indices = choose_shards(sizes)
    chosen, read_sizes = [shards[i] for i in indices], [sizes[i] for i in indices]
    steps = len(chosen) + 1
    heads, reading = [], 0.0
    for shard in chosen:
        started = perf_counter()
        head = source.read_head(shard)
        reading += (perf_counter() - started) / head.share if head.share else 0.0
        heads.append(head)
        if on_progress:
            on_progress(len(heads), steps)
    texts = [text for head in heads for text in head.texts]
    faults = _by_reason([fault for head in heads for fault in head.faults])
    if not texts:
        seen = ". ".join(f"{note.example}: {note.reason}, {note.detail}" for note in faults[:3])
        raise UserError(
            f"source: no text in the first documents of {len(chosen)} of {len(shards)} files. "
            f"{seen or 'The files are empty'}. "
            "Check that source.kind and the names of its columns fit the files."
        )
    documents = extrapolate(
        [head.records for head in heads],
        [head.error(head.counted) for head in heads],
        read_sizes,
        sizes,
    )
    characters = extrapolate(
        [head.characters for head in heads], [head.error() for head in heads], read_sizes, sizes
    )
    targets = [
        text
        for target in config.all_targets()
        for text in read_target(target, config.source)[0]["text"].to_pylist()
    ]
    rates = measure_rates(texts, config)
    if on_progress:
        on_progress(steps, steps)
    reading += _side_file_seconds(source, chosen)
    reading *= sum(sizes) / max(sum(read_sizes), 1)
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
            sizes,
            documents.likely,
            characters.likely,
            targets,
            vectors,
            granularities,
            rates,
            reading,
        ),
        disk_bytes=_disk(documents.likely, characters.likely, targets, identity, rates)
        | bands_disk(documents.likely, config.dedup),
        granularities=granularities,
        unsupported=tuple(k for k in config.cluster.granularities if k not in granularities),
        training_vectors=vectors,
        # float32, for the vectors and for the part of them that one sub-tree trains on.
        tree_memory_bytes=vectors * identity.dimension * 4 * 2,
        rates=rates,
        unread=_by_reason([*inventory.unread, *skipped_targets(config)]),
        faults=faults,
        warnings=(*warnings, *source.caveats(shards)),
    )


def _by_reason(faults: Sequence[Fault]) -> tuple[Note, ...]:
    """Return the sum of the faults of each reason. Files that are damaged come first."""
    first: dict[str, Fault] = {}
    numbers: Counter[str] = Counter()
    for fault in sorted(faults, key=lambda fault: (not fault.counted, fault.row is not None)):
        first.setdefault(fault.reason, fault)
        numbers[fault.reason] += fault.records
    return tuple(
        Note(reason=reason, number=numbers[reason], example=fault.file, detail=fault.detail)
        for reason, fault in first.items()
    )


def _scaled(count: EstimatedCount, factor: float) -> EstimatedCount:
    return EstimatedCount(
        low=round(count.low * factor),
        likely=round(count.likely * factor),
        high=round(count.high * factor),
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


def _side_file_seconds(source: Source[Any], shards: Sequence[Shard]) -> float:
    """Return the seconds to parse the side files of some shards, from a few of these files."""
    files = [file for shard in shards for file in source.side_files(shard)]
    sample = files[:: max(len(files) // _SIDE_FILES, 1)]
    seconds = sum(seconds_to_parse(file, size) for file, size in sample)
    return seconds / max(len(sample), 1) * len(files)


def _stage_seconds(
    config: Build,
    shards: Sequence[Shard],
    sizes: Sequence[float],
    documents: int,
    characters: int,
    targets: Sequence[str],
    vectors: int,
    granularities: Sequence[int],
    rates: MachineRates,
    reading: float,
) -> dict[str, float]:
    ratios = children(granularities)
    compared = sum(ratio * (config.cluster.beam if i else 1) for i, ratio in enumerate(ratios))
    target_characters = sum(map(len, targets))

    def without(component: str) -> float:
        """Return the share of the corpus, by size, that has no files of a component.

        Only RedPajama-V2 has any.
        """
        lacking = [
            size
            for shard, size in zip(shards, sizes, strict=True)
            if not any(
                file.path.startswith(f"{component}/") for file in (*shard.inputs, *shard.beside)
            )
        ]
        return sum(lacking) / max(sum(sizes), 1)

    return {
        "source": reading + characters * rates.write_seconds,
        "quality": characters * rates.signal_seconds * without("quality_signals"),
        "sign": characters * rates.sign_seconds * without("minhash"),
        "embed": documents * rates.encoder_tokens * rates.encode_seconds,
        "tree": tree_seconds(config.cluster, granularities, vectors, rates.cosine_seconds),
        "assign": documents * compared * rates.cosine_seconds,
        "sort": characters * (rates.tokenize_seconds + rates.write_seconds),
        "shard": characters * rates.write_seconds,
        "targets": len(targets) * _encoder_tokens(targets, config.embed) * rates.encode_seconds
        + target_characters * (rates.tokenize_seconds + rates.write_seconds),
    }


def _encoder_tokens(texts: Sequence[str], config: Embed) -> float:
    """Return the average number of encoder tokens per text, over an evenly spaced sample."""
    sample = texts[:: max(len(texts) // 512, 1)]
    return int(load_encoder(config).reader.read(sample).lengths.sum()) / max(len(sample), 1)


def _disk(
    documents: int, characters: int, targets: Sequence[str], identity: Identity, rates: MachineRates
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


def _levels(documents: EstimatedCount, config: Cluster) -> tuple[tuple[int, ...], list[str]]:
    """Return the levels that would be built, and warnings about the others."""
    built, requested = supported_levels(documents.likely, config), config.granularities
    key = f"cluster.granularities {list(requested)}"
    warnings = []
    if missing := next((k for k in requested if documents.likely < k * config.min_points), None):
        result = (
            "The build will be refused."
            if config.unsupported == "refuse"
            else f"The tree will end at level {built[-1]}."
        )
        warnings.append(
            f"{key}: level {missing} needs {missing * config.min_points:,} documents "
            f"(cluster.min_points), and there are about {documents.likely:,}. {result}"
        )
    elif documents.low < built[-1] * config.min_points:
        warnings.append(f"{key}: there may be too few documents for level {built[-1]}.")
    return built, warnings
