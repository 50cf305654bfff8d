"""A build of another size, extrapolated from the estimate of a build at hand.

The speeds are those that `estimate_build` measured on this machine. Nothing here has been run at
that size.
"""

from dataclasses import dataclass

from data_catalog.errors import UserError
from data_catalog.format.layout import Levels
from data_catalog.settings import Settings
from pipeline.cluster.stage import sample_size
from pipeline.config import Build
from pipeline.planning.estimate import Estimate
from pipeline.planning.rates import tree_seconds
from pipeline.shard.ranges import MINIMUM_COLUMN_BYTES, RANGE_FILES

# Seconds per document of stages that the trial of a machine leaves out, on two cores. Near copies:
# benchmarks/results/2026-11-30-dedup-scale.md. The others: 2026-11-22-large-build.md.
DIGEST_SECONDS, NEAR_SECONDS = 1 / 415_099, 20e-6
OTHER_STAGES = {"describe": 1 / 34_016, "domains": 1 / 355_017}
ONE_TASK = ("tree", "tokenizer", "domains")  # stages that one machine runs
TOKENIZER_SECONDS = 60.0  # bounded by tokenizer.sample_characters
# Objects that each part of a stage writes, its sidecar among them, and reads.
OBJECTS_WRITTEN = {
    "source": 3, "quality": 3, "sign": 2, "dedup": 2, "embed": 3, "assign": 2, "shard": 4,
}  # fmt: skip
OBJECTS_READ = {"quality": 1, "sign": 1, "dedup": 2, "embed": 2, "assign": 2, "sort": 5}
MANIFEST_ENTRY_BYTES = 135
LARGE_MANIFEST_BYTES = 10**8
LARGE_RANGE_BYTES = 16 * 2**30  # a range that one task reads for hours


@dataclass(frozen=True)
class Corpus:
    """The size of a corpus."""

    documents: int
    files: int


# English head and middle of one snapshot of RedPajama-V2; head and middle of all 84 snapshots and
# five languages without the duplicates on its own list; all of it.
CORPORA = {
    "snapshot": Corpus(360_000_000, 10_000),
    "deduplicated": Corpus(20_800_000_000, 4_200_000),
    "all": Corpus(113_000_000_000, 6_300_000),
}


class StageAtScale(Settings):
    """One stage of a build at another size."""

    stage: str
    """Name of the stage."""
    tasks: int
    """Number of tasks that can run at once."""
    machine_hours: float
    """Hours of work of one machine like this one, or of one device for `embed`."""
    hours: float
    """Hours on all machines, if the stage can use them all."""
    written_bytes: int
    """Bytes written. 0 where they are negligible."""
    written_objects: int
    """Objects written: requests of the kind PUT."""
    read_objects: int
    """Objects read: requests of the kind GET."""


class Scale(Settings):
    """A build at another size."""

    documents: int
    """Number of documents."""
    files: int
    """Number of input files, one part each."""
    input_bytes: int
    """Size of the input files, as stored."""
    machines: int
    """Number of machines like this one."""
    devices: int
    """Number of devices that embed."""
    stages: tuple[StageAtScale, ...]
    """The stages, in order."""
    ranges: int
    """Ranges of leaves that the documents are sorted in, with a file for each part and range."""
    range_bytes: int
    """Size of the documents of a range in memory."""
    catalog_bytes: int
    """Size of the catalog."""
    catalog_files: int
    """Number of its files."""
    manifest_bytes: int
    """Size of the list of its files."""
    tree_memory_bytes: int
    """Memory of the tree's training."""

    @property
    def warnings(self) -> list[str]:
        """Limits that a build of this size would meet."""
        found = []
        if self.range_bytes > LARGE_RANGE_BYTES:
            found.append(
                f"Each of {self.ranges:,} ranges of leaves has {self.range_bytes / 2**30:,.0f} "
                "GiB, because more ranges would need reads of less than 100 kB from the small "
                "files of this corpus. Join its files into larger ones first."
            )
        if self.manifest_bytes > LARGE_MANIFEST_BYTES:
            found.append(f"The manifest has {self.manifest_bytes / 1e9:,.1f} GB.")
        return found

    @property
    def hours(self) -> float:
        """Hours of the whole build if stages run one after another."""
        return sum(stage.hours for stage in self.stages)


def corpus_of(words: str, estimate: Estimate) -> Corpus:
    """Return the corpus that a name of CORPORA or a number of documents stands for.

    A number of documents has files of the same size as those at hand.

    Raises:
        UserError: It is neither.
    """
    if words in CORPORA:
        return CORPORA[words]
    number = words.replace(",", "").replace("_", "")
    if not number.isdecimal() or not int(number):
        raise UserError(
            f"--scale {words}: neither a number of documents nor one of {', '.join(CORPORA)}."
        )
    documents, here = int(number), max(estimate.documents.likely, 1)
    return Corpus(documents, max(1, documents * estimate.shards // here))


def at_scale(
    config: Build,
    estimate: Estimate,
    corpus: Corpus,
    machines: int = 1,
    devices: int | None = None,
    encoder_rate: float | None = None,
) -> Scale:
    """Return the estimate of a build of a corpus whose documents are like those at hand.

    Args:
        config: The build's config.
        estimate: Its estimate on this machine.
        corpus: The size of the other corpus.
        machines: Number of machines like this one.
        devices: Number of devices that embed. Default: those of all machines.
        encoder_rate: Documents per second of one device. Default: as measured on this machine.
    """
    here = max(estimate.documents.likely, 1)
    times = corpus.documents / here
    levels = Levels(config.cluster.granularities)
    devices = devices or machines * estimate.encoder_copies
    rate = encoder_rate or estimate.encoder_documents_per_second / estimate.encoder_copies
    seconds = {stage: value * times for stage, value in estimate.stage_seconds.items()}
    seconds |= {stage: each * corpus.documents for stage, each in OTHER_STAGES.items()}
    near = NEAR_SECONDS if "minhash" in config.dedup.tiers else 0.0
    seconds["dedup"] = corpus.documents * (DIGEST_SECONDS + near)
    seconds["embed"] = corpus.documents / rate
    vectors = min(corpus.documents, sample_size(levels, config.cluster))
    seconds["tree"] = tree_seconds(
        config.cluster, config.cluster.granularities, vectors, estimate.rates.cosine_seconds
    )
    seconds["tokenizer"] = 0.0 if config.tokenizer.path else TOKENIZER_SECONDS
    seconds["targets"] = estimate.stage_seconds["targets"]
    disk = {
        name: size if name == "targets" else round(size * times)
        for name, size in estimate.disk_bytes.items()
    }
    memory = disk["sort"] * _UNCOMPRESSED
    most = max(1, round(memory / corpus.files / MINIMUM_COLUMN_BYTES))
    range_bytes = RANGE_FILES * config.store.file_megabytes * 2**20
    ranges = min(max(1, round(memory / range_bytes)), most)
    stages = [
        _stage(stage, seconds[stage], corpus, ranges, disk.get(stage, 0), machines, devices)
        for stage in _ORDER
        if seconds.get(stage)
    ]
    files = 2 * max(ranges, round(memory / (config.store.file_megabytes * 2**20)))
    return Scale(
        documents=corpus.documents,
        files=corpus.files,
        input_bytes=round(estimate.bytes * times),
        machines=machines,
        devices=devices,
        stages=tuple(stages),
        ranges=ranges,
        range_bytes=round(memory / ranges),
        catalog_bytes=disk["shard"],
        catalog_files=files,
        manifest_bytes=files * MANIFEST_ENTRY_BYTES,
        tree_memory_bytes=vectors * estimate.encoder.dimension * 4 * 2,
    )


_ORDER = (
    "source", "quality", "sign", "dedup", "embed", "tree", "assign", "tokenizer", "sort", "shard",
    "targets", "describe", "domains",
)  # fmt: skip
_UNCOMPRESSED = 2.5  # memory of documents and tokens over their compressed size


def _stage(
    stage: str,
    seconds: float,
    corpus: Corpus,
    ranges: int,
    written: int,
    machines: int,
    devices: int,
) -> StageAtScale:
    tasks = {"shard": ranges, "describe": ranges, "targets": 1}.get(stage, corpus.files)
    tasks = 1 if stage in ONE_TASK else tasks
    workers = min(devices if stage == "embed" else machines, tasks)
    objects = {"sort": corpus.files * (ranges + 2), "shard": ranges * (2 * RANGE_FILES + 2)}
    reads = {"source": corpus.files, "shard": corpus.files * ranges, "describe": ranges * 4}
    return StageAtScale(
        stage=stage,
        tasks=tasks,
        machine_hours=seconds / 3600,
        hours=seconds / 3600 / workers,
        written_bytes=written,
        written_objects=objects.get(stage, OBJECTS_WRITTEN.get(stage, 1) * tasks),
        read_objects=reads.get(stage, OBJECTS_READ.get(stage, 1) * tasks),
    )
