"""The blocks of a sample are few, spread, and the same in any order of the parts."""

import pytest

from pipeline.config import Tokenizer
from pipeline.shard import text_sample
from pipeline.shard.text_sample import choose_blocks
from pipeline.shard.tokenize import _sample
from pipeline.verdicts import kept_batches
from tests.helpers.parts import source_part, verdicts_part


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Twelve parts of 40 documents of 10 characters, in row groups and blocks of 10 documents."""
    monkeypatch.setattr(text_sample, "BLOCK_ROWS", 10)
    monkeypatch.setattr(text_sample, "MINIMUM_BLOCKS", 6)
    names = [f"part-{number:02d}" for number in range(12)]
    sources = [
        source_part(tmp_path / name, [f"{name[5:]}-{i:02d} text" for i in range(40)], group_rows=10)
        for name in names
    ]
    dropped = {name: list(range(0, 40, 2)) for name in names}
    return sources, [verdicts_part(tmp_path / "dedup", sources, dropped)] * 12


def chosen(sources, verdicts, characters):
    blocks = choose_blocks(sources, verdicts, characters)
    return {sources[number].name: groups for number, groups in blocks.groups.items()}


def test_few_blocks_of_a_large_corpus_are_read(parts):
    sources, verdicts = parts
    blocks = choose_blocks(sources, verdicts, 1)
    assert sum(map(len, blocks.groups.values())) == 6
    assert len(blocks.groups) > 2
    assert blocks.characters == 6 * 5 * 10  # of every second document


def test_more_blocks_are_read_for_more_characters(parts):
    sources, verdicts = parts
    blocks = choose_blocks(sources, verdicts, 100)
    assert 400 <= blocks.characters < 1_200
    everything = choose_blocks(sources, verdicts, 10**9)
    assert everything.characters == 12 * 20 * 10
    assert set(everything.groups) == set(range(12))
    assert all(groups == [0, 1, 2, 3] for groups in everything.groups.values())


def test_the_order_of_the_parts_does_not_matter(parts):
    sources, verdicts = parts
    assert chosen(sources, verdicts, 1) == chosen(sources[::-1], verdicts, 1)


def test_a_part_more_changes_few_blocks(parts, tmp_path):
    sources, verdicts = parts
    before, after = chosen(sources[:11], verdicts[:11], 1), chosen(sources, verdicts, 1)
    same = {name for name, groups in before.items() if after.get(name) == groups}
    assert len(same) >= len(before) - 2


def test_only_the_chosen_groups_are_read_and_dropped_documents_are_not_among_them(parts):
    sources, verdicts = parts
    tables = kept_batches(sources[3], verdicts[3], ["text"], [1, 3])
    texts = [text for table in tables for text in table["text"].to_pylist()]
    assert texts == [f"03-{i:02d} text" for i in (11, 13, 15, 17, 19, 31, 33, 35, 37, 39)]


def test_a_tokenizer_is_trained_on_text_of_the_blocks(parts, monkeypatch):
    sources, verdicts = parts
    texts = list(_sample(sources, verdicts, Tokenizer(sample_characters=75)))
    allowed = chosen(sources, verdicts, 75)
    found = {(f"part-{text[:2]}", int(text[3:5]) // 10) for text in texts}
    assert texts
    assert all(group in allowed[name] for name, group in found)


def test_documents_of_large_parts_have_the_same_chance(tmp_path, monkeypatch):
    monkeypatch.setattr(text_sample, "BLOCK_ROWS", 1)
    monkeypatch.setattr(text_sample, "MINIMUM_BLOCKS", 40)
    sizes = {"small": 20, "large": 180}
    sources = [
        source_part(tmp_path / name, ["text"] * size, group_rows=1) for name, size in sizes.items()
    ]
    verdicts = [verdicts_part(tmp_path / "dedup", sources)] * 2
    blocks = choose_blocks(sources, verdicts, 1)
    assert {name: len(blocks.groups[i]) for i, name in enumerate(sizes)}["large"] > 28


def test_no_parts_have_no_blocks():
    blocks = choose_blocks([], [], 100)
    assert (blocks.groups, blocks.characters) == ({}, 0)
