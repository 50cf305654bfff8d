"""Places do the same on a disk, in memory and on an S3 server that refuses, delays and cuts."""

import os
import pickle
import threading
import uuid
from pathlib import Path

import fsspec
import pytest

from data_catalog import place as place_module
from data_catalog.errors import UserError
from data_catalog.place import Place, parse_folder
from tests.helpers.object_store import BUCKET, serving_objects

CONTENT = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def store():
    with serving_objects() as running:
        yield running


@pytest.fixture
def s3(store):
    """A folder of its own, and a store without faults afterwards."""
    yield Place(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    store.refused = store.cut_every = store.slow_every = 0


@pytest.fixture(params=["disk", "memory", "s3"])
def folder(request, tmp_path):
    match request.param:
        case "disk":
            return Place(str(tmp_path / "a::b"))
        case "memory":
            return Place(f"memory://{uuid.uuid4().hex}/x")
        case _:
            return request.getfixturevalue("s3")


def test_names(tmp_path):
    place = Place("s3://bucket/cats/") / "a" / "b.parquet"
    assert (str(place), place.name) == ("s3://bucket/cats/a/b.parquet", "b.parquet")
    assert str(place.parent) == "s3://bucket/cats/a"
    assert (place.is_local, place.path) == (False, None)
    assert Place(f"file://{tmp_path}/x") == Place(f"{tmp_path}/x")
    assert (Place(f"{tmp_path}/x").path, Place("x").parent.path) == (tmp_path / "x", Path())
    assert pickle.loads(pickle.dumps(place)) == place


def test_a_folder_is_a_path_or_a_place(tmp_path):
    assert parse_folder("cats/a") == Path("cats/a")
    assert parse_folder(f"file://{tmp_path}") == tmp_path
    assert (
        parse_folder("memory://x/y") == parse_folder(Path("memory://x/y")) == Place("memory://x/y")
    )
    with pytest.raises(UserError, match="nosuch://x"):
        parse_folder("nosuch://x")


def test_files_are_written_read_listed_and_removed(folder, tmp_path):
    assert (folder.sizes(), folder.names()) == ({}, [])
    file = folder / "deep" / "file"
    assert (file.size(), file.read(), file.exists()) == (None, None, False)
    file.write(b"old")
    file.write(CONTENT)
    (folder / "other").write(b"12")
    assert folder.sizes() == {"deep/file": len(CONTENT), "other": 2}
    assert folder.names() == ["deep", "other"]
    assert (file.size(), file.read()) == (len(CONTENT), CONTENT)
    assert (folder / "deep").size() is None
    file.download(tmp_path / "local", len(CONTENT))
    (folder / "again").upload(tmp_path / "local")
    (folder / "again").copy_to(folder / "deep" / "copy")
    assert (folder / "deep" / "copy").read() == CONTENT
    file.remove()
    file.remove()
    assert not file.exists()


def test_a_range_has_exactly_its_length(folder):
    file = folder / "file"
    file.write(CONTENT)
    assert file.read_range(300, 20) == CONTENT[300:320]
    assert file.read_range(5, 0) == b""
    with pytest.raises(UserError, match=r"missing"):
        (folder / "missing").read_range(0, 1)


def test_a_range_beyond_the_end_is_refused(folder, monkeypatch):
    monkeypatch.setattr(place_module, "_WAITS", (0,))
    file = folder / "file"
    file.write(CONTENT)
    with pytest.raises(UserError, match=str(file)):
        file.read_range(len(CONTENT) - 10, 20)
    with pytest.raises(UserError, match=str(file)):
        file.download(Path(os.devnull), len(CONTENT) + 1)


def test_one_of_several_creators_succeeds(folder):
    file = folder / "lease"
    contents = [f"maker {i}".encode() for i in range(8)]
    won, barrier = [], threading.Barrier(len(contents))

    def create(content):
        barrier.wait()
        if file.create(content):
            won.append(content)

    threads = [threading.Thread(target=create, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert file.read() == won[0]
    assert not file.create(b"late")
    assert file.read() == won[0]


def test_a_store_without_conditional_writes_is_asked_before(s3, monkeypatch):
    """Other stores answer 501 to If-None-Match. This one is made to."""
    system = fsspec.get_filesystem_class("s3")
    real = system.pipe_file

    def without_conditions(self, path, value, mode="overwrite", **options):
        if mode == "create":
            raise OSError(38, "NotImplemented")
        return real(self, path, value, **options)

    monkeypatch.setattr(system, "pipe_file", without_conditions)
    file = s3 / "lease"
    assert file.create(b"first")
    assert not file.create(b"second")
    assert file.read() == b"first"


@pytest.mark.parametrize(
    "faults", [{"refused": 2}, {"cut_every": 2}, {"slow_every": 2}, {"refused": 1, "cut_every": 4}]
)
def test_a_bad_store_loses_nothing(faults, store, s3, tmp_path):
    vars(store).update(faults)
    before = store.refusals + store.cuts
    for i in range(2):
        (s3 / f"{i}").write(CONTENT + bytes([i]))
    assert s3.sizes() == {f"{i}": len(CONTENT) + 1 for i in range(2)}
    for i in range(2):
        (s3 / f"{i}").download(tmp_path / "local", len(CONTENT) + 1)
        assert (tmp_path / "local").read_bytes() == CONTENT + bytes([i])
        assert (s3 / f"{i}").read_range(100, 5000) == CONTENT[100:5100]
    assert (s3 / "sole").create(b"x")
    assert not (s3 / "sole").create(b"y")
    assert ("slow_every" in faults) or store.refusals + store.cuts > before


def test_a_failure_is_one_sentence(s3, store, monkeypatch):
    monkeypatch.setattr(place_module, "_WAITS", (0,))
    with pytest.raises(UserError, match="s3://no-such-bucket/x"):
        Place("s3://no-such-bucket/x").write(b"")
    store.refused = 3
    with pytest.raises(UserError, match=f"{s3}: access failed") as raised:
        s3.read()
    assert "\n" not in str(raised.value)
