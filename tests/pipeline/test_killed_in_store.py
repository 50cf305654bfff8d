"""A build into an S3 server that is killed at several points and resumed gives the same catalog."""

import json
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from data_catalog import lease
from data_catalog.format.layout import MANIFEST
from data_catalog.format.manifest import read_manifest
from data_catalog.place import Place
from data_catalog.settings import parse
from pipeline.config import Build
from pipeline.run import build
from tests.helpers.object_store import BUCKET, serving_objects

pytestmark = pytest.mark.slow

# Builds, and kills itself at a point: just before the operation NAME on an object named OBJECT,
# the COUNTth time.
BUILDER = """
import json, os, signal, sys
from data_catalog import lease
from data_catalog.place import Place
from data_catalog.settings import parse
from pipeline.config import Build
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
build(parse(Build, json.loads(sys.argv[1]), "test"))
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
