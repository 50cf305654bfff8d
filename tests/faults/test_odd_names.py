"""Names of files that look like URLs, patterns or options, or that are not UTF-8."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from pipeline.config import Build
from pipeline.source.targets import check_targets, read_target
from tests.helpers.faults import Lost, Wrong
from tests.helpers.planted import check_corpus

pytestmark = pytest.mark.faults(
    "Odd file names",
    tried="Files and folders whose names look like URLs (`std::vector`, `s3::a`, `file:x`), "
    "patterns (`*`, `[`, `?`), templates (`{x}`, `key=value`, `%20`) or options, hold line ends, "
    "or are not UTF-8, as JSON lines, Parquet, text and targets, in folders and in a store.",
    expected="Every document is read, by plan and by build, and no two share an id.",
)

NAMES = [
    "std::vector",
    "http::x",
    "s3::a",
    "zip::a",
    "a::b",
    "file:x",
    "memory:",
    "c:d",
    "%20%2F",
    "a#b?c",
    "*",
    "[a-z]",
    "~",
    "~root",
    "line\nend",
    "{x}",
    "key=value",
    "-rf",
    "a'b\"c",
    "back\\slash",
    "ünï",
    os.fsdecode(b"caf\xe9"),
    "$HOME",
    "a;b|c&d",
]


def write(root, name, kind, text):
    """Write one record without an id, as `name` with the ending of its kind."""
    ending = {"jsonl": ".jsonl", "parquet": ".parquet", "text": ".txt"}[kind]
    path = Path(root, name + ending)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        if kind == "parquet":
            pq.write_table(pa.table({"text": [text]}), file)
        else:
            file.write(text.encode() if kind == "text" else json.dumps({"text": text}).encode())


def check_ids(ids):
    "".join(ids).encode()  # ids are UTF-8
    if len(set(ids)) != len(ids):
        raise Wrong(f"documents share ids: {ids}")


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "text"])
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_is_a_name(tmp_path, name, kind):
    root = tmp_path / "corpus"
    write(root, name, kind, "as a file")
    write(root, f"{name}/{name}", kind, "in a folder of the same name")
    write(root, "plain", kind, "plain")
    noted = {} if kind == "text" else {"no_id": 3}
    texts = ["as a file", "in a folder of the same name", "plain"]
    ids = check_corpus(tmp_path / "work", {"kind": kind, "path": str(root)}, texts, noted=noted)
    check_ids(ids)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_target_of_this_name_is_read(tmp_path, name):
    root = tmp_path / "target"
    for number in range(12):
        write(root, f"{name}/{number}-{name}", "jsonl", f"text {number}")
    config = Build.model_validate(
        {
            "out": tmp_path / "out",
            "source": {"kind": "jsonl", "path": tmp_path},
            "targets": [{"name": "mine", "path": root}],
        }
    )
    check_targets(config)
    table, faults = read_target(config.targets[0], config.source)
    if sorted(table["text"].to_pylist()) != sorted(f"text {number}" for number in range(12)):
        raise Lost(f"{table.num_rows} of 12 documents, {faults}")


@pytest.mark.parametrize("name", [name for name in NAMES if "\udce9" not in name], ids=ascii)
def test_a_store_has_this_name(tmp_path, name):
    root = UPath(f"memory://{tmp_path.name}")
    path = f"{root.path}/{name}/{name}.jsonl"
    root.fs.pipe(path, json.dumps({"text": "in a store"}).encode())
    try:
        section = {"kind": "jsonl", "path": str(root)}
        check_corpus(tmp_path / "work", section, ["in a store"], noted={"no_id": 1})
    finally:
        root.fs.store.clear()


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "text"])
def test_two_names_with_the_same_label_have_ids_of_their_own(tmp_path, kind):
    root = tmp_path / "corpus"
    names = [b"\xe9", b"\xe8", rb"\xe9", b"\xe9\\xe8", b"\\xe9\xe8", "é".encode()]
    for number, name in enumerate(names):
        write(root, os.fsdecode(name), kind, f"text {number}")
    noted = {} if kind == "text" else {"no_id": len(names)}
    texts = [f"text {number}" for number in range(len(names))]
    section = {"kind": kind, "path": str(root)}
    check_ids(check_corpus(tmp_path / "work", section, texts, noted=noted))


@pytest.mark.parametrize(
    "name",
    ["std::x", "a::b", "my[1] *cat's", "key=value", "%41", "file:x", os.fsdecode(b"\xe9")],
    ids=ascii,
)
def test_the_source_itself_has_this_name(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(name, "a", "jsonl", "text")
    section = {"kind": "jsonl", "path": name}
    check_corpus(Path("work"), section, ["text"], noted={"no_id": 1})
