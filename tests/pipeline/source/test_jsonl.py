import gzip
import json

import pytest
from upath import UPath

from data_catalog.errors import UserError
from pipeline.source.config import Jsonl
from pipeline.source.documents import Document, Fault
from pipeline.source.interface import Reservations
from pipeline.source.jsonl import JsonlSource


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def shards(path, reserved=()):
    source = JsonlSource(Jsonl(kind="jsonl", path=path), Reservations(tuple(reserved)))
    return source.plan().shards


def notes(path, reserved=()):
    source = JsonlSource(Jsonl(kind="jsonl", path=path), Reservations(tuple(reserved)))
    return {note.reason: note.records for note in source.plan().unread}


def read(shard, **columns):
    return JsonlSource(Jsonl(kind="jsonl", path=shard.root, columns=columns)).read(shard)


def test_files_below_a_folder_become_shards_with_unique_names_in_order(tmp_path):
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
    with pytest.raises(UserError, match=r"source\.path .*gone"):
        shards(tmp_path / "gone")
    with pytest.raises(UserError, match=r"source\.path .*\*\.jsonl"):
        shards(tmp_path)
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(UserError, match=r"source\.path .*a\.csv.*\*\.jsonl"):
        shards(tmp_path / "a.csv")


def test_files_of_targets_are_not_read(tmp_path):
    write(tmp_path / "a.jsonl", {"text": "t"})
    write(tmp_path / "targets" / "space" / "b.jsonl", {"text": "t"})
    assert [shard.key for shard in shards(tmp_path, [tmp_path / "targets"])] == ["a.jsonl"]
    assert notes(tmp_path, [tmp_path / "targets"]) == {"held_out": 1}
    with pytest.raises(UserError, match=r"source\.path .*targets"):
        shards(tmp_path, [tmp_path])


def test_records_give_documents(tmp_path):
    rows = [
        {"text": "one", "id": "x", "url": "u", "source": "s", "language": "en"},
        {"text": "two", "id": 7},
        {"text": "three", "id": ""},
    ]
    write(tmp_path / "sub" / "a.jsonl.gz", *rows, {"text": ""}, {"id": "y"})
    (shard,) = shards(tmp_path)
    found = list(read(shard))
    assert found[:3] == [
        Document("x", "one", "u", "s", "en"),
        Document("7", "two", source="sub/a"),
        Document("sub/a.jsonl.gz/2", "three", source="sub/a"),
    ]
    assert [(fault.row, fault.reason) for fault in found[3:] if isinstance(fault, Fault)] == [
        (3, "empty_text"),
        (4, "no_text"),
        (None, "no_id"),
    ]
    assert (found[-1].records, found[-1].counted) == (1, False)


def test_columns_can_have_other_names(tmp_path):
    write(
        tmp_path / "a.jsonl",
        {"body": "one", "key": "x", "link": "u", "site": "s", "text": "another"},
    )
    (shard,) = shards(tmp_path)
    assert list(read(shard, text="body", id="key", url="link", source="site")) == [
        Document("x", "one", "u", "s")
    ]


def test_a_store_reads_like_a_folder(tmp_path):
    remote = UPath(f"memory://{tmp_path.name}")
    for root in (tmp_path, remote):
        write(
            root / "sub" / "a.jsonl.gz",
            *({"text": f"text {i}"} for i in range(1_000)),
            {"no": "text"},
        )
    (local_shard,), (remote_shard,) = shards(tmp_path), shards(remote)
    assert list(read(local_shard)) == list(read(remote_shard))
    assert local_shard.identity() | {"inputs": ()} == remote_shard.identity() | {"inputs": ()}
    assert (local_shard.inputs[0].version, remote_shard.inputs[0].modified_ns) == (None, None)
    assert remote_shard.inputs[0].bytes == local_shard.inputs[0].bytes


def test_a_network_error_is_raised_and_not_a_fault_of_the_file(tmp_path, monkeypatch):
    remote = UPath(f"memory://{tmp_path.name}")
    write(remote / "a.jsonl", {"text": "t"})
    (shard,) = shards(remote)

    def fail(*arguments, **options):
        raise ConnectionResetError("by peer")

    monkeypatch.setattr(type(remote.fs), "open", fail)
    with pytest.raises(ConnectionResetError):
        list(read(shard))
