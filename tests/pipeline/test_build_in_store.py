"""A build whose catalog is in a store gives the catalog of a build on a disk."""

import json
import shutil
import tempfile
import time
import uuid

import pytest

import pipeline.parts
from data_catalog import lease as lease_module
from data_catalog.errors import UserError
from data_catalog.format.file_cache import cache_root
from data_catalog.format.layout import FOLDERS
from data_catalog.format.manifest import read_manifest, version_manifest
from data_catalog.place import Place
from data_catalog.settings import parse
from pipeline.config import Build
from pipeline.parts import SIDECAR
from pipeline.run import build, one_by_one


@pytest.fixture(autouse=True)
def local_disk(tmp_path, monkeypatch):
    """The machine's folder for temporary files, which holds the cache."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def out():
    return Place(f"memory://{uuid.uuid4().hex}/catalog")


@pytest.fixture
def config(built, out):
    return parse(Build, {**built[1], "out": str(out)}, "test")


def files_of(out):
    return {f"{folder}/{name}" for folder in FOLDERS for name in (out / folder).sizes()}


def test_the_catalog_is_that_of_a_disk(built, config, out):
    assert build(config) == out
    local, there = read_manifest(built[0]), read_manifest(out)
    assert there.fingerprint == local.fingerprint
    assert (there.built_from, there.files) == (local.built_from, local.files)
    assert files_of(out) == {*local.files, version_manifest(1)}
    assert {name: len((out / name).read()) for name in local.files} == {
        name: file.bytes for name, file in local.files.items()
    }
    assert not [name for name in (out / "work").names() if name.startswith("lease")]


def test_finished_parts_are_not_made_again(config, out, monkeypatch):
    build(config)
    before = out.sizes()
    shutil.rmtree(cache_root())
    monkeypatch.setattr(pipeline.parts, "_make_in_store", None)  # fails where a part is made
    build(config)
    assert out.sizes() == before


def test_a_cache_that_is_emptied_between_stages_costs_downloads_only(built, config, out):
    def each(stage, function, calls):
        shutil.rmtree(cache_root(), ignore_errors=True)
        return one_by_one(stage, function, calls)

    build(config, each)
    assert read_manifest(out).fingerprint == read_manifest(built[0]).fingerprint


def test_a_cut_file_in_the_cache_is_downloaded_again(built, config, out):
    def each(stage, function, calls):
        for file in (cache_root() / "files").rglob("*.parquet"):
            file.write_bytes(file.read_bytes()[:-1])
        return one_by_one(stage, function, calls)

    build(config, each)
    assert read_manifest(out).fingerprint == read_manifest(built[0]).fingerprint


def test_a_damaged_object_is_refused(config, out):
    def each(stage, function, calls):
        parts = one_by_one(stage, function, calls)
        if stage == "source":
            [name] = [n for n in out.sizes() if n.endswith("documents.parquet")][:1]
            size = (out / name).size()
            (out / name).write(b"x" * size)
            shutil.rmtree(cache_root())
        return parts

    with pytest.raises(UserError, match=r"documents\.parquet: .*checksum differs"):
        build(config, each)
    assert not (out / "catalog.json").exists()


def test_a_small_cache_is_enough(built, config, out, monkeypatch):
    monkeypatch.setenv("CLUSTERMIX_CACHE_GB", "0")
    build(config)
    assert read_manifest(out).fingerprint == read_manifest(built[0]).fingerprint


def test_a_second_builder_is_refused_until_the_lease_ends(config, out):
    held = {"host": "elsewhere", "pid": 7, "holder": "x", "since": time.time() - 5.0}
    lease = out / "work" / "lease-00000001.json"
    lease.write(json.dumps({**held, "until": time.time() + 100.0}).encode())
    with pytest.raises(UserError, match="process 7 on elsewhere"):
        build(config)
    assert not (out / "work" / "source").names()
    lease.write(json.dumps({**held, "until": time.time() - 1.0}).encode())
    build(config)
    assert (out / "catalog.json").exists()


def test_a_builder_that_lost_its_lease_publishes_nothing(config, out, monkeypatch):
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 0.8)

    def each(stage, function, calls):
        if stage == "leakage":  # another process takes the folder, as after this one was asleep
            (out / "work" / "lease-00000009.json").write(b"{}")
            time.sleep(1)
        return one_by_one(stage, function, calls)

    with pytest.raises(UserError, match="no longer holds the folder"):
        build(config, each)
    assert not (out / "catalog.json").exists()
    assert (out / "work" / "lease-00000009.json").exists()


def test_a_build_with_another_config_replaces_the_catalog(built, config, out):
    build(config)
    before = read_manifest(out)
    changed = parse(Build, {**built[1], "out": str(out), "seed": 5}, "test")
    build(changed)
    after = read_manifest(out)
    assert after.fingerprint != before.fingerprint
    assert files_of(out) == {*after.files, version_manifest(1)}


def test_a_folder_with_other_objects_is_refused(config, out):
    (out / "other").write(b"x")
    with pytest.raises(UserError, match="holds other"):
        build(config)
    assert out.names() == ["other"]


def test_two_makers_of_one_part_leave_the_first_ones(tmp_path):
    """Also if their files differ, as those of two kinds of GPU do."""
    from data_catalog.format.accounts import Account

    folder = Place(f"memory://{uuid.uuid4().hex}/work/embed/a")

    def make(content, then=lambda: None):
        def write(out):
            (out / "vectors").write_bytes(content)
            then()
            return Account()

        return pipeline.parts.make_part(folder, "f", write)

    part = make(b"slow", then=lambda: make(b"fast"))
    assert part.file("vectors").read_bytes() == b"fast"
    assert make(b"never").folder.joinpath("vectors").read_bytes() == b"fast"
    assert (folder / "f" / SIDECAR).exists()


def test_a_resumed_build_downloads_no_texts(config, out, monkeypatch):
    """Fingerprints need footers only, and the manifest's checksums come from the sidecars."""
    build(config)
    shutil.rmtree(cache_root())
    downloaded = []
    real = Place.download

    def download(place, *arguments):
        downloaded.append(place)
        return real(place, *arguments)

    monkeypatch.setattr(Place, "download", download)
    build(config)
    names = {
        place.url.removeprefix(f"{out}/work/").partition("/")[0] + "/" + place.name
        for place in downloaded
    }
    assert "source/quarantine.parquet" in names
    assert "source/documents.parquet" not in names
    assert not [
        name for name in names if name.startswith(("shard/d", "shard/t", "sort/", "embed/"))
    ]
