import gzip
import os

import pytest
from upath import UPath

from data_catalog.errors import UserError
from pipeline.location import file_below
from pipeline.source.config import Jsonl
from pipeline.source.files import FoundFile, describe_file, is_below, shard_name
from pipeline.source.jsonl import JsonlSource
from pipeline.source.walk import walk
from tests.helpers.failing_server import serving


@pytest.fixture(params=["local", "remote"])
def root(request, tmp_path):
    yield tmp_path / "root" if request.param == "local" else UPath(f"memory://{tmp_path.name}")
    if request.param == "remote":
        UPath(f"memory://{tmp_path.name}").fs.store.clear()


def write(path, data=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_files_are_sorted_by_the_parts_of_their_paths(root):
    for name in ("b", "a/c", "a.b/d", "a/b/e"):
        write(root / name)
    assert list(walk(root).files) == ["a/b/e", "a/c", "a.b/d", "b"]
    assert list(walk(root / "gone").files) == []


def test_a_changed_file_has_another_identity(root):
    write(root / "a", b"one")
    first = describe_file(root, FoundFile("a", "a", walk(root).files["a"]))
    assert (first, first.bytes, first.path) == (describe_file(root, FoundFile("a", "a")), 3, "a")
    write(root / "a", b"two")
    if first.modified_ns is not None:
        os.utime(root / "a", ns=(1, 1))
    assert describe_file(root, FoundFile("a", "a")) != first


def test_a_path_is_below_a_folder_only_in_the_same_file_system(root, tmp_path):
    write(root / "a" / "b")
    file = file_below(root, "a/b")
    assert is_below(file, [root / "a"])
    assert not is_below(file, [root / "c", tmp_path / "d", UPath("memory://other")])


def test_names_of_shards_are_safe_and_unique():
    suffixes = (".jsonl", ".jsonl.gz")
    assert [shard_name(name, suffixes) for name in ("a.jsonl", "b-1.jsonl")] == ["a", "b-1"]
    unusual = {
        shard_name(name, suffixes)
        for name in (
            "a.jsonl.gz",
            "a/b.jsonl",
            "a_b.jsonl.gz",
            "a b.jsonl",
            "\ud800.jsonl",
            "é.jsonl",
        )
    }
    assert len(unusual) == 6
    assert not any(set(name) & set("/ .") for name in unusual)


def test_files_are_read_over_http():
    with serving() as server:
        server.files["a.jsonl.gz"] = gzip.compress(b'{"text": "one"}\n{"text": "two"}\n')
        source = JsonlSource(Jsonl(kind="jsonl", path=f"{server.url}/a.jsonl.gz"))
        (shard,) = source.plan().shards
        assert [item.text for item in list(source.read(shard))[:2]] == ["one", "two"]
        assert (shard.key, shard.inputs[0].bytes) == ("a.jsonl.gz", len(server.files["a.jsonl.gz"]))
        assert shard.inputs[0].version.startswith('"')  # the ETag
        with pytest.raises(UserError, match=r"source\.path .*gone\.jsonl"):
            JsonlSource(Jsonl(kind="jsonl", path=f"{server.url}/gone.jsonl")).plan()
