import gzip
import json

import pytest

from pipeline.source import lines
from pipeline.source.documents import Fault
from pipeline.source.lines import read_records, text_fault


def rows(path, **options):
    """`(row, record)` or `(row, reason)` of everything read."""
    return [
        (item.row, item.reason) if isinstance(item, Fault) else item
        for item in read_records(path, "f", **options)
    ]


def test_objects_keep_their_line_numbers_over_blank_and_broken_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2}\n{"a": \n[1]\n{"a": "\xff"}\n{"a": 3}')
    assert rows(path) == [
        (0, {"a": 1}),
        (2, {"a": 2}),
        (3, "not_json"),
        (4, "not_json"),
        (5, "bad_utf8"),
        (6, {"a": 3}),
        (None, "blank_lines"),
    ]


@pytest.mark.parametrize("line", ["[" * 200_000, "1" * 5_000, '"text"', "null"])
def test_json_that_is_no_object_or_too_deep_or_too_large_a_number_is_not_json(tmp_path, line):
    (tmp_path / "a.jsonl").write_text(f'{line}\n{{"a": 1}}\n')
    assert rows(tmp_path / "a.jsonl") == [(0, "not_json"), (1, {"a": 1})]


def test_gzip_of_several_members_is_read_to_the_end(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(
        gzip.compress(b'{"a": 1}\n') + gzip.compress(b'{"a": 2}\n')
    )
    assert rows(tmp_path / "a.jsonl.gz") == [(0, {"a": 1}), (1, {"a": 2})]


def test_truncated_gzip_gives_its_whole_lines_then_the_fault(tmp_path):
    # Numbers that compress badly, so that whole lines come before the cut.
    data = gzip.compress(
        "".join(json.dumps({"a": i, "b": hash((i, i * 7))}) + "\n" for i in range(5_000)).encode()
    )
    (tmp_path / "a.jsonl.gz").write_bytes(data[: len(data) // 2])
    *readable, fault = rows(tmp_path / "a.jsonl.gz")
    assert fault == (None, "truncated_gzip")
    assert len(readable) > 1_000
    assert [record["a"] for _, record in readable] == list(range(len(readable)))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", [(None, "empty_file")]),
        (b"this is no gzip", [(0, "not_json")]),
        (b"\xff\xffthis is neither gzip nor text", [(None, "bad_gzip")]),
        (gzip.compress(b'{"a": 1}\n') + b"garbage", [(0, {"a": 1}), (None, "bad_gzip")]),
        (gzip.compress(b""), []),
    ],
    ids=["empty", "text", "bytes", "followed by garbage", "of nothing"],  # gzip holds the time
)
def test_broken_gzip_files(tmp_path, data, expected):
    (tmp_path / "a.jsonl.gz").write_bytes(data)
    assert rows(tmp_path / "a.jsonl.gz") == expected


def test_damage_inside_a_gzip_stream_is_a_fault(tmp_path):
    data = bytearray(gzip.compress(b"".join(b'{"a": %d}\n' % (i * i) for i in range(20_000))))
    data[-8] ^= 1  # the checksum
    (tmp_path / "a.jsonl.gz").write_bytes(data)
    assert rows(tmp_path / "a.jsonl.gz")[-1] == (None, "bad_gzip")


def test_a_missing_file_is_a_fault(tmp_path):
    assert rows(tmp_path / "gone.jsonl") == [(None, "unreadable_file")]


def test_a_line_over_the_limit_is_refused_and_the_next_is_read(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": "' + "x" * 5_000_000 + '"}\n{"a": 2}\n')
    faults = [
        item
        for item in read_records(tmp_path / "a.jsonl", "f", line_bytes=100)
        if isinstance(item, Fault)
    ]
    assert rows(tmp_path / "a.jsonl", line_bytes=100) == [
        (0, {"a": 1}),
        (1, "line_too_long"),
        (2, {"a": 2}),
    ]
    assert faults[0].detail == "5000010 bytes, the limit is 100"


def test_a_gzip_bomb_of_one_line_takes_little_memory(tmp_path):
    import tracemalloc

    with gzip.open(tmp_path / "a.jsonl.gz", "wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(b"x" * 2**20)
    tracemalloc.start()
    assert rows(tmp_path / "a.jsonl.gz", line_bytes=1_000) == [(0, "line_too_long")]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


@pytest.mark.parametrize(
    ("text", "reason", "characters"),
    [
        (None, "no_text", 0),
        (7, "no_text", 0),
        ("", "empty_text", 0),
        (" \n", "empty_text", 2),
        ("a\ud800b", "bad_unicode", 3),
    ],
)
def test_texts_that_are_no_documents(text, reason, characters):
    fault = text_fault(text, "f", 3, "text")
    assert (fault.file, fault.row, fault.reason, fault.characters) == ("f", 3, reason, characters)


def test_a_text_over_the_limit_is_no_document(monkeypatch):
    monkeypatch.setattr(lines, "TEXT_BYTES", 8)
    assert text_fault("ab" * 4, "f", 3, "text") is None
    fault = text_fault("é" * 5, "f", 3, "text")
    assert (fault.reason, fault.characters) == ("too_long", 5)
    assert fault.detail == "text has 10 bytes, the limit is 8"


@pytest.mark.parametrize("text", ["a", "a\0b", "\U0001f600"])
def test_unusual_texts_that_are_documents(text):
    assert text_fault(text, "f", 0, "text") is None
