import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import Build
from pipeline.planning import heads
from pipeline.planning.heads import (
    EstimatedCount,
    choose_shards,
    extrapolate,
    seconds_to_parse,
)
from pipeline.source import head as source_head
from pipeline.source import parquet
from pipeline.source.config import Jsonl
from pipeline.source.documents import Input, Shard
from pipeline.source.head import Head
from pipeline.source.jsonl import JsonlSource
from pipeline.source.registry import corpus_source


def head(records, share=1.0, texts=("x",)):
    return Head(list(texts), [""] * len(texts), records, share)


def jsonl(tmp_path, lines, name="a.jsonl"):
    text = "".join(line + "\n" for line in lines).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    config = Build(out=tmp_path / "out", source={"kind": "jsonl", "path": str(tmp_path)})
    source = corpus_source(config)
    [shard] = source.plan().shards
    return source.read_head(shard)


def test_counts_are_in_proportion_to_size():
    assert extrapolate([10, 10], [0, 0], [100, 100], [100, 100, 300]) == EstimatedCount(
        low=50, likely=50, high=50
    )


def test_a_fully_read_corpus_has_no_error():
    assert extrapolate([10, 90], [0, 0], [100, 100], [100, 100]) == EstimatedCount(
        low=100, likely=100, high=100
    )


def test_the_error_between_shards_is_that_of_a_ratio_estimate():
    # The ratio is 1/2, and 2 of 4 shards have residuals of -10 and 10. Twice the standard error is
    # 2 sqrt((100 + 100) 2/1 (1 - 2/4)) = 28.3, times 400/200.
    assert extrapolate([40, 60], [0, 0], [100, 100], [100] * 4) == EstimatedCount(
        low=143, likely=200, high=257
    )


def test_the_error_within_heads_adds_up():
    # 2 sqrt(50^2 0.04 + 50^2 0.04) = 28.3
    assert extrapolate([50, 50], [0.04, 0.04], [1, 1], [1, 1]) == EstimatedCount(
        low=72, likely=100, high=128
    )


def test_the_error_of_a_head_is_that_of_its_mean_length():
    assert head(100, share=0.5, texts=["x", "xxx"]).error() == 1 / 4 / 2 * 0.5
    assert head(100, share=1.0, texts=["x", "xxx"]).error() == 0
    assert head(100, share=0.5, texts=["x", "xxx"]).error(counted=True) == 0
    assert head(100, share=0.5, texts=["x", "xxx"]).characters == 200


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_small_file_is_read_whole(tmp_path, name):
    found = jsonl(
        tmp_path,
        [
            json.dumps({"text": "one", "language": "en"}),
            "not json",
            "",
            json.dumps({"text": "two"}),
        ],
        name,
    )
    assert (found.texts, found.languages, found.records, found.share) == (
        ["one", "two"],
        ["en", ""],
        2,
        1.0,
    )
    assert [fault.reason for fault in found.faults] == ["not_json", "blank_lines", "no_id"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_large_file_is_extrapolated_from_its_whole_lines(tmp_path, monkeypatch, name):
    monkeypatch.setattr(source_head, "HEAD_BYTES", 2_000)
    lines = [
        json.dumps({"text": f"{i * 7919 % 1000:03d} some words {i * 104729 % 1000:03d}"})
        for i in range(1000)
    ]
    found = jsonl(tmp_path, lines, name)
    assert 30 < len(found.texts) < 600
    assert found.texts == [json.loads(line)["text"] for line in lines[: len(found.texts)]]
    assert found.records == pytest.approx(1000, rel=0.1)
    assert found.share == pytest.approx(len(found.texts) / found.records)


def test_a_broken_gzip_file_gives_what_can_be_read(tmp_path):
    whole = gzip.compress(b'{"text": "one"}\n' * 5)
    (tmp_path / "a.jsonl.gz").write_bytes(whole + b"garbage")
    config = Build(out=tmp_path / "out", source={"kind": "jsonl", "path": str(tmp_path)})
    source = corpus_source(config)
    [shard] = source.plan().shards
    assert source.read_head(shard).texts == ["one"] * 5


def test_rows_of_parquet_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "HEAD_DOCUMENTS", 4)
    pq.write_table(pa.table({"text": [f"text {i}" for i in range(10)]}), tmp_path / "a.parquet")
    config = Build(out=tmp_path / "out", source={"kind": "parquet", "path": str(tmp_path)})
    source = corpus_source(config)
    [shard] = source.plan().shards
    found = source.read_head(shard)
    assert (found.texts, found.records, found.share, found.counted) == (
        ["text 0", "text 1", "text 2", "text 3"],
        10,
        0.4,
        True,
    )


def shard(size):
    return Shard(name="a", kind="jsonl", root=".", key="a", inputs=(Input(path="a", bytes=size),))


def test_few_shards_are_all_chosen_and_many_are_sampled_by_size(monkeypatch):
    assert choose_shards([1] * 5) == [0, 1, 2, 3, 4]
    monkeypatch.setattr(heads, "MAXIMUM_HEADS", 3)
    assert choose_shards([1] * 9) == [1, 4, 7]
    assert choose_shards([1, 100, 1, 1]) == [1]


def test_the_size_of_a_shard_is_its_bytes():
    assert JsonlSource(Jsonl(kind="jsonl", path=".")).size(shard(7)) == 7


def test_the_seconds_to_parse_a_file_are_in_proportion_to_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(heads, "perf_counter", iter([0.0, 2.0]).__next__)
    monkeypatch.setattr(source_head, "HEAD_BYTES", 160)
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n' * 40)
    assert seconds_to_parse(tmp_path / "a.jsonl", 16 * 40) == 8.0
