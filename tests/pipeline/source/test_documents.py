from pathlib import Path

import pytest

from pipeline.source.documents import (
    Input,
    Shard,
    document_number,
    encodable,
    text_digest,
    unit_hash,
)


@pytest.mark.parametrize(
    ("doc_id", "number"),
    [
        ("2018-43/0000/en_head.json.gz/0", 7972430436813205988),
        ("2018-26/0008/en_head.json.gz/25733", 269240523265542594),
        ("2023-06/0000/en_head.json.gz/0", 13812950656272331291),  # over 2**63 - 1
    ],
)
def test_document_numbers_are_those_of_redpajama(doc_id, number):
    assert document_number(doc_id) == number


def test_digest_and_hash_do_not_change():
    assert text_digest("a") == "27c35e6e9373877f29e562464e46497e"
    assert unit_hash("split", "a") == unit_hash("split", "a") != unit_hash("sample", "a")


def test_unit_hash_is_uniform():
    numbers = [unit_hash("test", str(i)) for i in range(10_000)]
    assert all(0 <= number < 1 for number in numbers)
    assert abs(sum(number < 0.3 for number in numbers) - 3_000) < 150


def test_encodable():
    assert [encodable(value) for value in ("é\0", "a\ud800", None, 7)] == ["é\0", "a?", None, None]


def test_a_moved_corpus_is_the_same_corpus_and_a_changed_file_is_not():
    def shard(root: str, size: int) -> Shard:
        return Shard(
            name="a",
            kind="jsonl",
            root=Path(root),
            key="a.jsonl",
            inputs=(Input(path="a.jsonl", bytes=size, modified_ns=1),),
        )

    assert shard("/x", 1).identity() == shard("/y", 1).identity() != shard("/x", 2).identity()
