"""The first stages on the real sample of 34,631 documents, if it is beside the checkout."""

import pytest

from data_catalog.format.accounts import total
from data_catalog.settings import parse
from pipeline.config import Build
from pipeline.quality.stage import judge_part
from pipeline.source.registry import corpus_source
from pipeline.source.stage import read_shard
from tests.helpers.repository import CORPUS
from tests.helpers.shuffled import deduplicate

pytestmark = pytest.mark.skipif(
    not (CORPUS / "documents").is_dir(), reason="the sample corpus is not beside this checkout"
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    source = corpus_source(configured(folder))
    return [read_shard(shard, folder / shard.name, source) for shard in source.plan().shards]


def configured(folder, **settings):
    return parse(
        Build,
        {"out": str(folder), "source": {"kind": "rpv2", "path": str(CORPUS)}, **settings},
        "test",
    )


def test_every_record_is_read(sources):
    account = total(part.account for part in sources)
    assert (len(sources), account.read.rows, account.read.characters, account.failed) == (
        18,
        34_631,
        98_483_899,
        {},
    )


@pytest.fixture(scope="module")
def judged(sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality")
    config = configured(folder)
    return [judge_part(part, folder / part.name, config.quality) for part in sources]


@pytest.mark.parametrize("tiers", [["shipped"], ["digest"], ["shipped", "digest"]])
def test_only_the_planted_exact_copies_are_dropped(sources, judged, tmp_path, tiers):
    config = configured(tmp_path, dedup={"tiers": tiers})
    made = list(zip(sources, judged, strict=True))
    account = total(part.account for part in deduplicate(tmp_path, made, config.dedup))
    assert sum(tally.rows for tally in account.dropped.values()) == 340


def test_the_presets_keep_the_same_documents_as_before(sources, tmp_path):
    for preset, kept in (
        ("gopher", 16_964),
        ("together", 31_782),
        ("c4", 30_521),
        ("lucie", 19_420),
    ):
        config = configured(tmp_path, quality={"preset": preset})
        judged = [
            judge_part(part, tmp_path / preset / part.name, config.quality) for part in sources
        ]
        assert total(part.account for part in judged).kept.rows == kept
