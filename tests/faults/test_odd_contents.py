"""Odd contents of files: damaged or misnamed compression, encodings, records, ids and columns."""

import bz2
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.faults import Wrong
from tests.helpers.planted import check_corpus

pytestmark = pytest.mark.faults(
    "Odd contents of files",
    tried="Damaged and misnamed compression, wrong encodings, other formats, blank lines, ids and "
    "columns of other types, in JSON lines, text and Parquet.",
    expected="Plan and build read the same documents. Everything else is counted by a reason, with "
    "the name of a file.",
)

CODEC = pa.Codec("zstd")
BOM = b"\xef\xbb\xbf"


def zstd(data):
    return CODEC.compress(data, asbytes=True)


def rows(*texts, **more):
    return b"".join(
        json.dumps({"id": f"id-{text}", "text": text, **more}).encode() + b"\n" for text in texts
    )


def lay(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


# name -> files, texts, failed, noted
JSONL = {
    "other endings": (
        {"a.jsonl": rows("a"), "README.md": b"x", "b.csv": b"x", "c.jsonl.bak": rows("c")},
        "a",
        {},
        {"other_ending": 3},
    ),
    "all endings": (
        {
            "a.jsonl": rows("a"),
            "b.ndjson": rows("b"),
            "c.json": rows("c"),
            "d.json.gz": gzip.compress(rows("d")),
            "e.jsonl.zst": zstd(rows("e")),
            "f.JSONL": rows("f"),
            "g.ndjson.zstd": zstd(rows("g")),
        },
        "abcdefg",
        {},
        {},
    ),
    "hidden": (
        {
            "a.jsonl": rows("a"),
            ".a.jsonl": rows("x"),
            "._b.jsonl": b"\0\5\x16",
            "__MACOSX/c.jsonl": rows("x"),
            ".ipynb_checkpoints/d.jsonl": rows("old"),
            "b/_temporary/0/e.jsonl": rows("x"),
            "_SUCCESS": b"",
        },
        "a",
        {},
        {"hidden": 6},
    ),
    "gzip named plain": ({"a.jsonl": gzip.compress(rows("a"))}, "a", {}, {}),
    "plain named gzip": ({"a.jsonl.gz": rows("a")}, "a", {}, {}),
    "zstd named gzip": ({"a.jsonl.gz": zstd(rows("a"))}, "a", {}, {}),
    "gzip members": (
        {"a.jsonl.gz": gzip.compress(rows("a")) + gzip.compress(rows("b"))},
        "ab",
        {},
        {},
    ),
    "zstd frames": ({"a.jsonl.zst": zstd(rows("a")) + zstd(rows("b"))}, "ab", {}, {}),
    "truncated gzip": (
        {"a.jsonl.gz": gzip.compress(rows("a"))[:-4]},
        "a",
        {"truncated_gzip": 1},
        {},
    ),
    "truncated zstd": (
        {"a.jsonl.zst": zstd(rows("a")) + zstd(rows("b"))[:-2]},
        "a",
        {"truncated_zstd": 1},
        {},
    ),
    "bad zstd": (
        {"a.jsonl": rows("a"), "b.jsonl.zst": b"\x28\xb5\x2f\xfd junk"},
        "a",
        {"bad_zstd": 1},
        {},
    ),
    "garbage after gzip": (
        {"a.jsonl.gz": gzip.compress(rows("a")) + b"garbage"},
        "a",
        {"bad_gzip": 1},
        {},
    ),
    "bzip2": (
        {"a.jsonl": bz2.compress(rows("a")), "b.jsonl": rows("b")},
        "b",
        {"other_format": 1},
        {},
    ),
    "zip": (
        {"a.jsonl": b"PK\x03\x04" + bytes(50), "b.jsonl": rows("b")},
        "b",
        {"other_format": 1},
        {},
    ),
    "empty file": ({"a.jsonl": b"", "b.jsonl": rows("b")}, "b", {"empty_file": 1}, {}),
    "empty gzip": (
        {"a.jsonl.gz": gzip.compress(b""), "b.jsonl": rows("b")},
        "b",
        {},
        {"no_records": 1},
    ),
    "blank lines": (
        {"a.jsonl": b"\n" + rows("a") + b"\r\n  \n" + rows("b")},
        "ab",
        {},
        {"blank_lines": 3},
    ),
    "marks of Windows": (
        {"a.jsonl": BOM + rows("a") + BOM + rows("b").replace(b"\n", b"\r\n")},
        "ab",
        {},
        {},
    ),
    "UTF-16": (
        {"a.jsonl": rows("a", "b").decode().encode("utf-16"), "b.jsonl": rows("c")},
        "c",
        {"bad_utf8": 1},
        {},
    ),
    "UTF-16 without a mark": (
        {"a.jsonl": rows("a").decode().encode("utf-16-le"), "b.jsonl": rows("c")},
        "c",
        {"bad_utf8": 1},
        {},
    ),
    "UTF-32": (
        {"a.jsonl": rows("a").decode().encode("utf-32"), "b.jsonl": rows("c")},
        "c",
        {"bad_utf8": 1},
        {},
    ),
    "JSON array": (
        {"a.json": b"[" + rows("a").strip() + b"]", "b.jsonl": rows("b")},
        "b",
        {"not_json_lines": 1},
        {},
    ),
    "JSON object": (
        {"a.json": b'{\n "text": "a"\n}\n', "b.jsonl": rows("b")},
        "b",
        {"not_json_lines": 1},
        {},
    ),
    "other records": (
        {"a.jsonl": rows("a") + b'[1]\n7\n{"text": 5}\n{"text": " "}\n{}\n{"a\n' + rows("b")},
        "ab",
        {"not_json": 3, "no_text": 2, "empty_text": 1},
        {},
    ),
    "numbers as ids": (
        {"a.jsonl": b'{"id": 7, "text": "a", "source": 3}\n{"id": 8.0, "text": "b"}\n'},
        "ab",
        {},
        {},
    ),
    "ids of other types": (
        {"a.jsonl": b'{"id": true, "text": "a"}\n{"id": [1], "text": "b"}\n{"text": "c"}\n'},
        "abc",
        {},
        {"bad_id": 2, "no_id": 1},
    ),
    "ids twice": ({"a.jsonl": rows("a") + rows("a")}, "aa", {}, {"repeated_id": 1}),
    "fields of other types": (
        {"a.jsonl": rows("a", url=3, language=[1]) + rows("b", source={})},
        "ab",
        {},
        {"bad_url": 1, "bad_language": 1, "bad_source": 1},
    ),
}
TEXT = {
    "other endings": (
        {"a.txt": b"a", "b.md": b"b", "c.pdf": b"c", "Makefile": b"d"},
        "ab",
        {},
        {"other_ending": 2},
    ),
    "hidden": (
        {"a.txt": b"a", ".git/b.txt": b"b", "_build/c.txt": b"c", "._a.txt": b"d"},
        "a",
        {},
        {"hidden": 3},
    ),
    "compressed": (
        {"a.txt.gz": gzip.compress(b"a"), "b.md.zst": zstd(b"b"), "c.txt": zstd(b"c")},
        "abc",
        {},
        {},
    ),
    "encodings": (
        {"a.txt": b"a", "b.txt": "bö".encode("utf-16"), "c.txt": "cö".encode("latin-1")},
        "a",
        {"bad_utf8": 2},
        {},
    ),
    "binary": (
        {"a.txt": b"a", "b.txt": b"\x7fELF\0\0\0", "c.txt": b"%PDF-1.7 x"},
        "a",
        {"not_text": 1, "other_format": 1},
        {},
    ),
    "empty": (
        {"a.txt": b"a", "b.txt": b"", "c.txt": b" \n"},
        "a",
        {"empty_file": 1, "empty_text": 1},
        {},
    ),
}


@pytest.mark.parametrize("name", JSONL)
def test_json_lines(tmp_path, name):
    files, texts, failed, noted = JSONL[name]
    lay(tmp_path / "in", files)
    ids = check_corpus(
        tmp_path / "work", {"kind": "jsonl", "path": tmp_path / "in"}, texts, failed, noted
    )
    if name == "numbers as ids" and ids != ["7", "8"]:
        raise Wrong(f"ids {ids}")


@pytest.mark.parametrize("name", TEXT)
def test_text(tmp_path, name):
    files, texts, failed, noted = TEXT[name]
    lay(tmp_path / "in", files)
    section = {"kind": "text", "path": tmp_path / "in"}
    check_corpus(tmp_path / "work", section, texts, failed, noted)


TABLES = {
    "int64 ids": ({"id": pa.array([1, 2]), "text": ["a", "b"]}, "ab", {}, {}),
    "decimal ids": (
        {"id": pa.array([1, 2], pa.decimal128(5, 0)), "text": ["a", "b"]},
        "ab",
        {},
        {},
    ),
    "bytes": ({"id": ["x", "y"], "text": [b"a", b"\xff"]}, "a", {"bad_utf8": 1}, {}),
    "dictionary": (
        {"id": ["x", "y"], "text": pa.array(["a", "b"]).dictionary_encode()},
        "ab",
        {},
        {},
    ),
    "null ids": ({"id": ["x", None], "text": ["a", "b"]}, "ab", {}, {"no_id": 1}),
    "list ids": ({"id": [["x"], ["y"]], "text": ["a", "b"]}, "ab", {}, {"bad_id": 2}),
    "null texts": ({"id": ["x", "y"], "text": ["a", None]}, "a", {"no_text": 1}, {}),
    "no rows": (
        {"id": pa.array([], pa.string()), "text": pa.array([], pa.string())},
        "",
        {},
        {"no_records": 1},
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_parquet(tmp_path, name):
    columns, texts, failed, noted = TABLES[name]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "in" / "a.parquet")
    section = {"kind": "parquet", "path": tmp_path / "in"}
    check_corpus(tmp_path / "work", section, texts, failed, noted)
