import gzip
import json

import pytest
from upath import UPath

from data_catalog.errors import UserError
from pipeline.config import Columns, Jsonl
from pipeline.source.documents import Document, Fault
from pipeline.source.jsonl import plan, read


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def shards(path, held_out=()):
    return plan(Jsonl(kind="jsonl", path=path), held_out)


def test_files_are_found_below_a_folder_in_order_with_names_of_their_own(tmp_path):
    for name in (
        "b.jsonl",
        "a/c.jsonl",
        "a_c.jsonl",
        "d.jsonl.gz",
        "d.jsonl",
        "notes.txt",
        "x y.jsonl",
    ):
        write(tmp_path / name, {"text": "t"})
    found = shards(tmp_path)
    assert [shard.key for shard in found] == [
        "a/c.jsonl",
        "a_c.jsonl",
        "b.jsonl",
        "d.jsonl",
        "d.jsonl.gz",
        "x y.jsonl",
    ]
    names = [shard.name for shard in found]
    assert names[2:4] == ["b", "d"]
    assert len(set(names)) == 6
    assert not any(set(name) & set("/ .") for name in names)


def test_a_single_file_is_a_shard(tmp_path):
    write(tmp_path / "a.jsonl", {"text": "t"})
    assert [(shard.name, shard.key) for shard in shards(tmp_path / "a.jsonl")] == [("a", "a.jsonl")]


def test_paths_without_json_lines_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        shards(tmp_path / "gone")
    with pytest.raises(UserError, match="holds no file"):
        shards(tmp_path)
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(UserError, match="expected a file named"):
        shards(tmp_path / "a.csv")


def test_files_of_targets_are_not_read(tmp_path, caplog):
    write(tmp_path / "a.jsonl", {"text": "t"})
    write(tmp_path / "targets" / "space" / "b.jsonl", {"text": "t"})
    assert [shard.key for shard in shards(tmp_path, [tmp_path / "targets"])] == ["a.jsonl"]
    assert "1 of 2 files belong to targets" in caplog.text
    with pytest.raises(UserError, match="nothing is left for the corpus"):
        shards(tmp_path, [tmp_path])


def test_records_give_documents(tmp_path):
    rows = [
        {"text": "one", "id": "x", "url": "u", "source": "s", "language": "en"},
        {"text": "two", "id": 7},
        {"text": "three", "id": ""},
    ]
    write(tmp_path / "sub" / "a.jsonl.gz", *rows, {"text": ""}, {"id": "y"})
    (shard,) = shards(tmp_path)
    found = list(read(shard, Columns()))
    assert found[:3] == [
        Document("x", "one", "u", "s", "en"),
        Document("sub/a.jsonl.gz/1", "two", source="sub/a"),
        Document("sub/a.jsonl.gz/2", "three", source="sub/a"),
    ]
    assert [(fault.row, fault.reason) for fault in found[3:] if isinstance(fault, Fault)] == [
        (3, "empty_text"),
        (4, "no_text"),
    ]


def test_columns_can_have_other_names(tmp_path):
    write(
        tmp_path / "a.jsonl",
        {"body": "one", "key": "x", "link": "u", "site": "s", "text": "another"},
    )
    (shard,) = shards(tmp_path)
    assert list(read(shard, Columns(text="body", id="key", url="link", source="site"))) == [
        Document("x", "one", "u", "s")
    ]


def test_it_reads_the_same_elsewhere(tmp_path):
    elsewhere = UPath(f"memory://{tmp_path.name}")
    for root in (tmp_path, elsewhere):
        write(
            root / "sub" / "a.jsonl.gz",
            *({"text": f"text {i}"} for i in range(1_000)),
            {"no": "text"},
        )
    (here,), (there,) = shards(tmp_path), shards(elsewhere)
    assert list(read(here, Columns())) == list(read(there, Columns()))
    assert here.identity() | {"inputs": ()} == there.identity() | {"inputs": ()}
    assert (here.inputs[0].version, there.inputs[0].modified_ns) == (None, None)
    assert there.inputs[0].bytes == here.inputs[0].bytes


def test_a_network_that_fails_is_not_the_files_fault(tmp_path, monkeypatch):
    elsewhere = UPath(f"memory://{tmp_path.name}")
    write(elsewhere / "a.jsonl", {"text": "t"})
    (shard,) = shards(elsewhere)

    def fail(*arguments, **options):
        raise ConnectionResetError("by peer")

    monkeypatch.setattr(type(elsewhere.fs), "open", fail)
    with pytest.raises(ConnectionResetError):
        list(read(shard, Columns()))
