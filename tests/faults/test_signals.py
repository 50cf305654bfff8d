"""Signals during commands that make catalogs: build, add and demo."""

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest

from data_catalog.format.manifest import read_manifest
from data_catalog.settings import parse
from data_catalog.verify import check
from pipeline.add import add
from pipeline.config import Addition, Build
from pipeline.run import build
from tests.flows.cli.test_main import toml
from tests.helpers.faults import Lost, Wrong
from tests.helpers.interrupted import (
    ALL_TERM,
    COMMAND,
    CTRL_C,
    GROUP_HUP,
    GROUP_INT,
    GROUP_TERM,
    SIGNALS,
    Running,
    finished,
    imports,
    in_part,
    publishing,
    server_starts,
    unfinished,
)

pytestmark = SIGNALS
LOADED = 4  # processes that keep all cores busy
POINTS = {  # functions of the catalog's folder
    "first-imports": lambda _: imports(0.0),
    "imports": lambda _: imports(1.0),
    "late-imports": lambda _: imports(2.5),
    "prefect-server": lambda _: server_starts,
    "prefect-part-of-embed": lambda out: in_part(out, "embed"),
    "part-of-source": lambda out: in_part(out, "source"),
    "part-of-embed": lambda out: in_part(out, "embed"),
    "part-of-describe": lambda out: in_part(out, "describe"),
    "after-source": lambda out: finished(out, "source", 2),
    "publishing": publishing,
}


@pytest.fixture(scope="module")
def prefect_home(tmp_path_factory):
    return tmp_path_factory.mktemp("prefect")


def interrupt(words, folder, prefect_home, way, point):
    """Run a command until a point, and interrupt it there."""
    running = Running([*COMMAND, *map(str, words)], folder, way.terminal, prefect_home)
    running.wait_for(point)
    running.interrupt(way)


def prefect_option(point):
    return ["--prefect"] if point.startswith("prefect-") else []


class Trial:
    """A build in a folder of its own, with the source of the shared catalog."""

    def __init__(self, built, folder):
        self.reference, self.out = built[0], folder / "catalog"
        self.settings = {**built[1], "out": str(self.out)}
        self.config = folder / "build.toml"
        self.config.write_text(toml(self.settings))

    def resume(self):
        """Build what is missing, and check the catalog."""
        if unpublished := [path for path in unfinished(self.out) if "work" not in path.parts]:
            raise Lost(f"temporary files: {unpublished}")
        parts = {path: path.stat().st_mtime_ns for path in self.out.glob("work/*/[!.]*/part.json")}
        build(parse(Build, self.settings, "test"))
        if repeated := [path for path, made in parts.items() if path.stat().st_mtime_ns != made]:
            raise Lost(f"finished parts were made again: {repeated}")
        if read_manifest(self.out).fingerprint != read_manifest(self.reference).fingerprint:
            raise Wrong("the resumed build made another catalog")
        if faults := check(self.out).faults:
            raise Wrong(str(faults))
        assert not unfinished(self.out)


BUILDS = [
    (CTRL_C, "first-imports"),
    (GROUP_TERM, "imports"),
    (GROUP_INT, "late-imports"),
    (CTRL_C, "prefect-server"),
    (GROUP_TERM, "prefect-server"),
    (CTRL_C, "prefect-part-of-embed"),
    (CTRL_C, "part-of-embed"),
    (GROUP_INT, "publishing"),
    (GROUP_HUP, "part-of-source"),
    (ALL_TERM, "after-source"),
]


@pytest.mark.parametrize(("way", "point"), BUILDS, ids=str)
def test_build(built, tmp_path, prefect_home, way, point):
    trial = Trial(built, tmp_path)
    words = ("build", trial.config, *prefect_option(point))
    interrupt(words, tmp_path, prefect_home, way, POINTS[point](trial.out))
    trial.resume()


def test_build_with_processes(built, tmp_path, prefect_home):
    trial = Trial(built, tmp_path)
    words = ("build", trial.config, "--runner", "processes", "--workers", 2)
    interrupt(words, tmp_path, prefect_home, CTRL_C, in_part(trial.out, "quality"))
    trial.resume()


@contextmanager
def busy_machine():
    burn = [sys.executable, "-S", "-c", "while True: pass"]
    processes = [subprocess.Popen(burn) for _ in range(LOADED)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_build_on_a_busy_machine(built, tmp_path, prefect_home):
    trial = Trial(built, tmp_path)
    with busy_machine():
        point = finished(trial.out, "source", 2)
        interrupt(("build", trial.config), tmp_path, prefect_home, GROUP_INT, point)
    trial.resume()


ADDITIONS = [
    (CTRL_C, "imports"),
    (GROUP_INT, "prefect-server"),
    (GROUP_TERM, "part-of-embed"),
    (CTRL_C, "publishing"),
]


@pytest.mark.parametrize(("way", "point"), ADDITIONS, ids=str)
def test_add(built, tmp_path, prefect_home, way, point):
    root = shutil.copytree(built[0], tmp_path / "catalog")
    (tmp_path / "more").mkdir()
    for part in range(2):
        rows = [
            {"id": f"new-{i}", "text": f"Orchard number {i} grows apples, and {i} pears."}
            for i in range(part, 60, 2)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "more" / f"{part}.jsonl").write_text(lines)
    addition = {"source": {"kind": "jsonl", "path": str(tmp_path / "more")}}
    (tmp_path / "add.toml").write_text(toml(addition))
    before = read_manifest(root)
    words = ("add", root, tmp_path / "add.toml", *prefect_option(point))
    interrupt(words, tmp_path, prefect_home, way, POINTS[point](root))
    if read_manifest(root) != before or check(root).faults:
        raise Lost("the version before the addition is damaged")
    if unpublished := [path for path in unfinished(root) if "work" not in path.parts]:
        raise Lost(f"temporary files: {unpublished}")
    add(root, parse(Addition, addition, "test"))
    manifest = read_manifest(root)
    if manifest.version != 2 or manifest.documents != before.documents + 60:
        raise Wrong(f"version {manifest.version} has {manifest.documents} documents")
    if faults := check(root).faults:
        raise Wrong(str(faults))
    assert not unfinished(root)


DEMOS = [
    (GROUP_TERM, "imports"),
    (CTRL_C, "prefect-server"),
    (GROUP_INT, "part-of-source"),
]


@pytest.mark.parametrize(("way", "point"), DEMOS, ids=str)
def test_demo(tmp_path, prefect_home, way, point):
    out = tmp_path / "demo"
    reached = POINTS[point](out / "catalog")
    words = ("demo", "--out", out, *prefect_option(point))
    interrupt(words, tmp_path, prefect_home, way, reached)
    assert not (out / "catalog" / "catalog.json").exists()
