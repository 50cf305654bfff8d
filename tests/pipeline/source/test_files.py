import gzip
import os

import pytest
from upath import UPath

from data_catalog.errors import UserError
from pipeline.config import Columns, Jsonl
from pipeline.source import jsonl
from pipeline.source.files import describe, is_below, list_files, shard_name
from tests.helpers.failing_server import serving


@pytest.fixture(params=["here", "elsewhere"])
def root(request, tmp_path):
    yield tmp_path / "root" if request.param == "here" else UPath(f"memory://{tmp_path.name}")
    if request.param == "elsewhere":
        UPath(f"memory://{tmp_path.name}").fs.store.clear()


def write(path, data=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_files_are_listed_by_their_parts_wherever_they_are(root):
    for name in ("b", "a/c", "a.b/d", "a/b/e"):
        write(root / name)
    assert list(list_files(root)) == ["a/b/e", "a/c", "a.b/d", "b"]
    assert list(list_files(root / "gone")) == []


def test_a_changed_file_is_another_input(root):
    write(root / "a", b"one")
    first = describe(root, "a", list_files(root)["a"])
    assert (first, first.bytes, first.path) == (describe(root, "a"), 3, "a")
    write(root / "a", b"two")
    if first.modified_ns is not None:
        os.utime(root / "a", ns=(1, 1))
    assert describe(root, "a") != first


def test_a_place_is_below_a_folder_only_where_that_is(root, tmp_path):
    write(root / "a" / "b")
    assert is_below(root / "a" / "b", [root / "a"])
    assert not is_below(root / "a" / "b", [root / "c", tmp_path / "d", UPath("memory://other")])


def test_names_of_shards_are_safe_and_their_own():
    suffixes = (".jsonl", ".jsonl.gz")
    assert [shard_name(name, suffixes) for name in ("a.jsonl", "b-1.jsonl")] == ["a", "b-1"]
    strange = {
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
    assert len(strange) == 6
    assert not any(set(name) & set("/ .") for name in strange)


def test_files_are_read_over_http():
    with serving() as server:
        server.files["a.jsonl.gz"] = gzip.compress(b'{"text": "one"}\n{"text": "two"}\n')
        (shard,) = jsonl.plan(Jsonl(kind="jsonl", path=f"{server.url}/a.jsonl.gz"))
        assert [item.text for item in jsonl.read(shard, Columns())] == ["one", "two"]
        assert (shard.key, shard.inputs[0].bytes) == ("a.jsonl.gz", len(server.files["a.jsonl.gz"]))
        assert shard.inputs[0].version.startswith('"')  # the ETag
        with pytest.raises(UserError, match="does not exist"):
            jsonl.plan(Jsonl(kind="jsonl", path=f"{server.url}/gone.jsonl"))
