import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import Build
from pipeline.planning import heads
from pipeline.planning.heads import (
    Head,
    Range,
    choose,
    extrapolate,
    parse_seconds,
    read_head,
    size_of,
)
from pipeline.source.documents import Input, Shard
from pipeline.source.stage import plan


def head(records, size, share=1.0, texts=("x",)):
    return Head(list(texts), [""] * len(texts), records, share, size, 0, 0.0)


def jsonl(tmp_path, lines, name="a.jsonl"):
    text = "".join(line + "\n" for line in lines).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    config = Build(out=tmp_path / "out", source={"kind": "jsonl", "path": str(tmp_path)})
    [shard] = plan(config)
    return read_head(shard, config)


def test_counts_are_in_proportion_to_size():
    assert extrapolate([head(10, 100), head(10, 100)], [10, 10], [0, 0], [100, 100, 300]) == Range(
        low=50, likely=50, high=50
    )


def test_a_corpus_read_whole_has_no_error():
    assert extrapolate([head(10, 100), head(90, 100)], [10, 90], [0, 0], [100, 100]) == Range(
        low=100, likely=100, high=100
    )


def test_the_error_between_shards_is_that_of_a_ratio_estimate():
    # ratio 1/2; residuals -10 and 10 of 2 shards of 4: 2 sqrt((100 + 100) 2/1 (1 - 2/4)) = 28.3, times 400/200
    assert extrapolate([head(40, 100), head(60, 100)], [40, 60], [0, 0], [100] * 4) == Range(
        low=143, likely=200, high=257
    )


def test_the_error_within_heads_adds_up():
    # 2 sqrt(50^2 0.04 + 50^2 0.04) = 28.3
    assert extrapolate([head(50, 1), head(50, 1)], [50, 50], [0.04, 0.04], [1, 1]) == Range(
        low=72, likely=100, high=128
    )


def test_the_error_of_a_head_is_that_of_its_mean_length():
    assert head(100, 1, share=0.5, texts=["x", "xxx"]).error() == 1 / 4 / 2 * 0.5
    assert head(100, 1, share=1.0, texts=["x", "xxx"]).error() == 0
    assert head(100, 1, share=0.5, texts=["x", "xxx"]).error(counted=True) == 0
    assert head(100, 1, share=0.5, texts=["x", "xxx"]).characters == 200


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
        3,
        1.0,
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_large_file_is_extrapolated_from_its_whole_lines(tmp_path, monkeypatch, name):
    monkeypatch.setattr(heads, "HEAD_BYTES", 2_000)
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
    [shard] = plan(config)
    assert read_head(shard, config).texts == ["one"] * 5


def test_rows_of_parquet_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(heads, "HEAD_DOCUMENTS", 4)
    pq.write_table(pa.table({"text": [f"text {i}" for i in range(10)]}), tmp_path / "a.parquet")
    config = Build(out=tmp_path / "out", source={"kind": "parquet", "path": str(tmp_path)})
    [shard] = plan(config)
    found = read_head(shard, config)
    assert (found.texts, found.records, found.share, found.counted) == (
        ["text 0", "text 1", "text 2", "text 3"],
        10,
        0.4,
        True,
    )


def shard(size):
    return Shard(name="a", kind="jsonl", root=".", key="a", inputs=(Input(path="a", bytes=size),))


def test_few_shards_are_all_chosen_and_of_many_some_by_their_bytes(monkeypatch):
    assert choose([shard(1)] * 5) == [0, 1, 2, 3, 4]
    monkeypatch.setattr(heads, "MOST_HEADS", 3)
    assert choose([shard(1)] * 9) == [1, 4, 7]
    assert choose([shard(1), shard(100), shard(1), shard(1)]) == [1]
    assert size_of(shard(7)) == 7


def test_seconds_of_a_file_follow_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(heads, "perf_counter", iter([0.0, 2.0]).__next__)
    monkeypatch.setattr(heads, "HEAD_BYTES", 160)
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n' * 40)
    assert parse_seconds(tmp_path / "a.jsonl") == 8.0
