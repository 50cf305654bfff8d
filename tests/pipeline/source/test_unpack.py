import bz2
import gzip

import pyarrow as pa
import pytest

from pipeline.source.config import Jsonl, Text
from pipeline.source.jsonl import JsonlSource
from pipeline.source.lines import read_records
from pipeline.source.text import TextSource
from pipeline.source.unpack import other_encoding


def zstd(*frames):
    codec = pa.Codec("zstd")
    return b"".join(codec.compress(frame, asbytes=True) for frame in frames)


def read(path):
    """The rows of readable records, and the reasons of faults."""
    return [
        item[1]["a"] if isinstance(item, tuple) else item.reason for item in read_records(path, "f")
    ]


def lines(*numbers):
    return b"".join(b'{"a": %d}\n' % number for number in numbers)


def test_text_is_unpacked_by_its_content_and_not_by_its_name(tmp_path):
    (tmp_path / "a.txt").write_bytes(gzip.compress(b"packed"))
    (tmp_path / "b.txt.gz").write_bytes(b"plain")
    (tmp_path / "c.txt.gz").write_bytes(zstd(b"frame"))
    source = TextSource(Text(kind="text", path=tmp_path))
    found = [record for shard in source.plan().shards for record in source.read(shard)]
    assert [record.text for record in found] == ["packed", "plain", "frame"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd])
def test_names_of_json_lines_may_be_wrong(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(lines(1, 2)))
    assert read(tmp_path / name) == [1, 2]


def test_all_frames_are_read_and_frames_without_data_are_skipped(tmp_path):
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    (tmp_path / "a.jsonl.zst").write_bytes(skippable + zstd(lines(1), lines(2, 3)))
    assert read(tmp_path / "a.jsonl.zst") == [1, 2, 3]


def test_every_line_before_the_damage_of_a_zstd_file_is_read(tmp_path):
    whole = range(5_000)
    data = zstd(lines(*whole), lines(*range(9_000)))
    (tmp_path / "cut.jsonl.zst").write_bytes(data[:-3])
    (tmp_path / "bad.jsonl.zst").write_bytes(zstd(lines(*whole)) + b"junk junk junk")
    assert read(tmp_path / "cut.jsonl.zst")[:5_000] == list(whole)
    assert read(tmp_path / "cut.jsonl.zst")[-1] == "truncated_zstd"
    assert read(tmp_path / "bad.jsonl.zst") == [*whole, "bad_zstd"]


def test_a_damaged_file_says_how_much_of_it_was_not_read(tmp_path):
    data = gzip.compress(lines(1)) + b"\0\1garbage" + bytes(range(256)) * 4_000
    (tmp_path / "a.jsonl.gz").write_bytes(data)
    *_, fault = read_records(tmp_path / "a.jsonl.gz", "f")
    assert "of the file's bytes were not read" in fault.detail


@pytest.mark.parametrize(
    ("data", "word"), [(bz2.compress(b"x"), "bzip2"), (b"PK\x03\x04zip", "zip")]
)
def test_other_formats_are_one_fault(tmp_path, data, word):
    (tmp_path / "a.jsonl").write_bytes(data)
    [fault] = read_records(tmp_path / "a.jsonl", "f")
    assert (fault.reason, fault.row) == ("other_format", None)
    assert word in fault.detail


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_utf_16_and_utf_32_are_named(tmp_path, encoding):
    (tmp_path / "a.jsonl").write_bytes(lines(1, 2).decode().encode(encoding))
    [fault] = read_records(tmp_path / "a.jsonl", "f")
    assert (fault.reason, fault.row) == ("bad_utf8", None)
    assert encoding[:6].upper() in fault.detail


def test_utf_8_has_no_other_encoding():
    assert [other_encoding(start) for start in (b"", b"{", b'{"a": 1}', b"\0\0\0\0")] == [None] * 4


def test_a_file_that_is_one_json_value_is_one_fault(tmp_path):
    for name, text in (
        ("array", '[{"a": 1}, {"a": 2}]'),
        ("array-over-lines", '[\n{"a": 1},\n{"a": 2}\n]\n'),
        ("open-array", '[{"a": 1},\n{"a": 2}]\n'),
        ("object", '{\n  "a": 1\n}\n'),
    ):
        (tmp_path / name).write_text(text)
        assert read(tmp_path / name) == ["not_json_lines"], name
    (tmp_path / "lines").write_text('[1]\n[2]\n{"a": 3}\n')
    assert read(tmp_path / "lines") == ["not_json", "not_json", 3]


def test_a_byte_order_mark_at_the_start_of_any_line_is_ignored(tmp_path):
    mark = b"\xef\xbb\xbf"
    (tmp_path / "a.jsonl").write_bytes(mark + lines(1) + mark + lines(2) + mark)
    assert read(tmp_path / "a.jsonl") == [1, 2, "blank_lines"]


def test_json_lines_have_many_endings(tmp_path):
    for ending in ("jsonl", "ndjson", "json"):
        for packed, pack in (("", bytes), (".gz", gzip.compress), (".zst", zstd), (".zstd", zstd)):
            (tmp_path / f"{ending}.{ending}{packed}").write_bytes(pack(b'{"text": "x"}\n'))
    source = JsonlSource(Jsonl(kind="jsonl", path=tmp_path))
    inventory = source.plan()
    assert len(inventory.shards) == len({shard.name for shard in inventory.shards}) == 12
    assert inventory.unread == []
    heads = [source.read_head(shard) for shard in inventory.shards]
    assert [head.records for head in heads] == [1] * 12
    assert {next(iter(source.read(shard))).source for shard in inventory.shards} == {
        "jsonl",
        "ndjson",
        "json",
    }
