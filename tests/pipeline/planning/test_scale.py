"""A build at another size: stages that grow with the corpus, those that do not, and its limits."""

import pytest

from data_catalog import UserError
from data_catalog.format.encoder_identity import Identity
from data_catalog.settings import parse
from pipeline.config import Build
from pipeline.planning.estimate import Estimate
from pipeline.planning.heads import EstimatedCount
from pipeline.planning.rates import MachineRates
from pipeline.planning.scale import CORPORA, Corpus, at_scale, corpus_of
from tests.helpers.tiny_corpus import write_corpus

MILLION = EstimatedCount(low=1_000_000, likely=1_000_000, high=1_000_000)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Build:
    settings = write_corpus(tmp_path_factory.mktemp("scale"))
    return parse(Build, {**settings, "cluster": {"granularities": [64, 4096]}}, "test")


@pytest.fixture(scope="module")
def estimate() -> Estimate:
    """A million documents in 50 files, of 2 kB each in compressed Parquet."""
    rates = MachineRates(
        encoder_tokens=200,
        encode_seconds=1e-5,
        tokens=0.25,
        tokenize_seconds=1e-7,
        text_bytes=0.4,
        token_bytes=1.5,
        token_width=2,
        write_seconds=1e-8,
        signal_seconds=0,
        sign_seconds=0,
        cosine_seconds=1e-9,
    )
    return Estimate(
        shards=50,
        files=50,
        bytes=2 * 10**9,
        documents=MILLION,
        characters=MILLION,
        tokens=MILLION,
        languages={},
        shards_read=1,
        target_documents=10,
        target_characters=10,
        encoder=Identity(
            model="m", sha256="0", dimension=384, max_tokens=256, precision="float32"
        ),
        encoder_copies=1,
        encoder_documents_per_second=500,
        stage_seconds={"source": 3600.0, "embed": 2000.0, "tree": 1.0, "sort": 7200.0,
                       "shard": 360.0, "targets": 30.0},
        disk_bytes={"source": 10**9, "embed": 10**9, "sort": 2 * 10**9, "shard": 10**9},
        granularities=(64, 4096),
        unsupported=(),
        training_vectors=1_000_000,
        tree_memory_bytes=1,
        rates=rates,
        unread=(),
        faults=(),
        warnings=(),
    )  # fmt: skip


def test_linear_stages_use_all_machines_and_others_do_not(
    config: Build, estimate: Estimate
) -> None:
    scale = at_scale(config, estimate, Corpus(100_000_000, 5_000), machines=10, encoder_rate=10_000)
    stages = {stage.stage: stage for stage in scale.stages}
    assert stages["source"].machine_hours == pytest.approx(100)
    assert stages["source"].hours == pytest.approx(10)
    assert stages["source"].written_bytes == 100 * 10**9
    assert stages["embed"].machine_hours == pytest.approx(10_000 / 3600)
    assert stages["targets"].hours == stages["targets"].machine_hours == pytest.approx(30 / 3600)
    # Two million vectors are the most that the tree is trained on: 64 + 64 products, 20 times.
    assert stages["tree"].hours == pytest.approx(2_000_000 * 128 * 20 * 1e-9 / 3600)
    assert stages["tree"].tasks == 1
    assert scale.tree_memory_bytes == 2_000_000 * 384 * 4 * 2
    assert scale.hours == pytest.approx(sum(stage.hours for stage in scale.stages))


def test_a_range_is_a_gigabyte_unless_files_are_small(config: Build, estimate: Estimate) -> None:
    large_files = at_scale(config, estimate, Corpus(100_000_000, 1_000))
    assert large_files.ranges == pytest.approx(5 * 10**11 / 2**30, rel=0.01)
    assert large_files.warnings == []
    stages = {stage.stage: stage for stage in large_files.stages}
    assert stages["shard"].read_objects == 1_000 * large_files.ranges
    small_files = at_scale(config, estimate, Corpus(100_000_000, 1_000_000))
    assert small_files.ranges == 5  # of 100 kB of each file
    assert "Join its files" in small_files.warnings[0]


def test_sizes_by_name_and_by_number(estimate: Estimate) -> None:
    assert corpus_of("snapshot", estimate) is CORPORA["snapshot"]
    assert corpus_of("20,000,000", estimate) == Corpus(20_000_000, 1_000)
    assert corpus_of("10", estimate) == Corpus(10, 1)
    for words in ("0", "-5", "1e6", "english"):
        with pytest.raises(UserError, match=f"--scale {words}"):
            corpus_of(words, estimate)
