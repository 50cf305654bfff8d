"""Builds and additions in an S3 server, killed at several points, end as those on a disk do."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

import data_catalog
from data_catalog import lease
from data_catalog.format.layout import MANIFEST
from data_catalog.format.manifest import read_manifest
from data_catalog.place import Place
from data_catalog.settings import parse
from data_catalog.transfer.copy import export_catalog
from data_catalog.verify import check
from pipeline.add import add
from pipeline.config import Build
from pipeline.run import build
from tests.helpers.object_store import BUCKET, serving_objects
from tests.pipeline.test_add import addition_of, write_more

pytestmark = pytest.mark.slow

# Builds or adds, and kills itself at a point: just before the operation NAME on an object named
# OBJECT, the COUNTth time.
BUILDER = """
import json, os, signal, sys
from data_catalog import lease
from data_catalog.place import Place
from data_catalog.settings import parse
from pipeline.add import add
from pipeline.config import Addition, Build
from pipeline.run import build

lease.LEASE_SECONDS = 3.0
operation, name, count = sys.argv[2], sys.argv[3], int(sys.argv[4])
real, seen = getattr(Place, operation), 0

def killing(place, *arguments):
    global seen
    seen += place.name == name
    if seen == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(place, *arguments)

setattr(Place, operation, killing)
settings = json.loads(sys.argv[1])
if "out" in settings:
    build(parse(Build, settings, "test"))
else:
    print("ready", flush=True)
    sys.stdin.readline()
    add(Place(sys.argv[5]), parse(Addition, settings, "test"))
"""
POINTS = {  # what is killed when
    "while a part is uploaded": ("upload", "quarantine.parquet", 1),
    "before a sidecar": ("create", "part.json", 5),
    "before the manifest": ("write", MANIFEST, 2),  # the first is the version's own
}


def test_a_killed_build_resumes(built, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with serving_objects() as store:
        out = Place(f"s3://{BUCKET}/catalog")
        settings = {**built[1], "out": str(out)}
        sidecars = 0
        for point in POINTS.values():
            words = [sys.executable, "-c", BUILDER, json.dumps(settings), *map(str, point)]
            assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
            assert not (out / MANIFEST).exists()
            made = sum(name.endswith("part.json") for name in (out / "work").sizes())
            assert made >= sidecars
            sidecars = made
            time.sleep(3)  # until the lease of the killed process ends
        assert sidecars > 10
        store.refused, store.cut_every, store.slow_every = 1, 7, 11
        monkeypatch.setattr(lease, "LEASE_SECONDS", 60.0)
        build(parse(Build, settings, "test"))
        assert min(store.refusals, store.cuts) > 0
        there, local = read_manifest(out), read_manifest(built[0])
        assert (there.fingerprint, there.files) == (local.fingerprint, local.files)


ADDITION_POINTS = {
    "while a part is uploaded": ("upload", "quarantine.parquet", 1),
    "before a sidecar": ("create", "part.json", 9),
    "while files are published": ("copy_to", "documents-0000.parquet", 1),
    "before the manifest": ("write", MANIFEST, 2),  # the first is the version's own
}


def start_adding(out, addition, point):
    words = [json.dumps(addition.model_dump(mode="json")), *map(str, point), str(out)]
    adder = subprocess.Popen(
        [sys.executable, "-c", BUILDER, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert adder.stdout.readline() == "ready\n"
    return adder


def test_a_killed_addition_resumes_and_readers_see_whole_versions(built, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    write_more(tmp_path / "more")
    addition = addition_of(tmp_path / "more", dedup={"tiers": ["digest", "minhash"]})
    local = shutil.copytree(built[0], tmp_path / "local", ignore=shutil.ignore_patterns("work"))
    add(local, addition)
    query = "SELECT count(*), sum(length(text)) FROM documents"
    with serving_objects() as store:
        out = Place(f"s3://{BUCKET}/catalog")
        export_catalog(built[0], out.url)
        opened = data_catalog.open(out)
        expected = opened.sql(query).fetchall()
        sidecars = 0
        for point in ADDITION_POINTS.values():
            adder = start_adding(out, addition, point)
            _, errors = adder.communicate("go\n")
            assert adder.returncode == -signal.SIGKILL, errors
            assert read_manifest(out) == opened.manifest
            assert data_catalog.open(out).sql(query).fetchall() == expected
            made = sum(name.endswith("part.json") for name in (out / "work").sizes())
            assert made >= sidecars
            sidecars = made
            time.sleep(3)  # until the lease of the killed process ends
        assert sidecars > 10
        store.refused, store.cut_every, store.slow_every = 1, 7, 11
        monkeypatch.setattr(lease, "LEASE_SECONDS", 60.0)
        add(out, addition)
        assert min(store.refusals, store.cuts) > 0
        store.refused = store.cut_every = store.slow_every = 0
        there, here = read_manifest(out), read_manifest(local)
        assert (there.fingerprint, there.files) == (here.fingerprint, here.files)
        assert [check(out, version).faults for version in (1, 2)] == [(), ()]
        assert opened.sql(query).fetchall() == expected


def test_of_two_additions_at_once_one_is_refused(built, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    write_more(tmp_path / "more")
    addition = addition_of(tmp_path / "more")
    with serving_objects():
        out = Place(f"s3://{BUCKET}/catalog")
        export_catalog(built[0], out.url)
        never = ("upload", "", 1)
        adders = [start_adding(out, addition, never) for _ in range(2)]
        for adder in adders:
            adder.stdin.write("go\n")
            adder.stdin.flush()
        ended = [adder.communicate()[1] for adder in adders]
        refused = [errors for errors in ended if errors]
        assert sorted(adder.returncode for adder in adders) == [0, 1], ended
        assert "another build is running here, process" in refused[0].splitlines()[-1]
        assert (check(out).version, check(out).faults) == (2, ())
