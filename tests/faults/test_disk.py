"""Disks that are full: a file system in memory of a fixed size, which is then enlarged."""

import json
import shutil

import pytest

from data_catalog.format.manifest import read_manifest
from data_catalog.verify import check
from tests.helpers.commands import run_command, small_disk
from tests.helpers.faults import Lost, Wrong
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_corpus import write_corpus
from tests.helpers.tiny_training import write_config

pytestmark = pytest.mark.faults(
    "Full disks",
    tried=(
        "A file system of 8 kB to 1 MB that is full at different moments of build, of a build over "
        "another catalog, add, train, report, rebuild, export and fetch. Then it is enlarged and "
        "the command repeated."
    ),
    expected=(
        "One sentence with the path, exit code 2, no temporary file left, and the repeated command "
        "gives the same result as one that was not interrupted."
    ),
)

# Kilobytes, and the last stage that has a finished part.
BUILDS = [
    (8, None),
    (28, None),
    (50, "source"),
    (76, "source"),
    (104, "quality"),
    (180, "dedup"),
    (240, "dedup"),
    (300, "embed"),
    (480, "tokenizer"),
    (600, "tokenizer"),
    (660, "sort"),
    (740, "shard"),
    (800, "targets"),
    (880, "describe"),
    (900, "domains"),
    (940, "domains"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The config of a build, its catalog, and the config of an addition."""
    folder = tmp_path_factory.mktemp("corpus")
    config = write_corpus(folder)
    path = folder / "build.json"
    path.write_text(json.dumps(config))
    ended = run_command("build", path)
    assert ended.code == 0, ended.output
    (folder / "more").mkdir()
    rows = [
        {"id": f"new-{i}", "text": f"Orchard number {i} grows apples, and {i} pears."}
        for i in range(30)
    ]
    (folder / "more" / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    addition = {"source": {"kind": "jsonl", "path": str(folder / "more")}}
    (folder / "add.json").write_text(json.dumps(addition))
    return folder


def stages(root):
    return {path.parents[1].name for path in root.glob("work/*/*/part.json")}


def check_catalog(root, reference):
    if read_manifest(root).fingerprint != read_manifest(reference).fingerprint:
        raise Wrong(f"{root} is another catalog than {reference}")
    assert check(root).faults == ()


@pytest.mark.parametrize(("kilobytes", "last"), BUILDS)
def test_build(corpus, tmp_path, kilobytes, last):
    with small_disk(tmp_path / "disk", f"{kilobytes}k") as disk:
        out = disk.root / "catalog"
        config = json.loads((corpus / "build.json").read_text()) | {"out": str(out)}
        path = tmp_path / "build.json"
        path.write_text(json.dumps(config))
        run_command("build", path).is_refused(str(disk.root), "no space left on device")
        assert disk.temporaries() == []
        if last:
            assert last in stages(out)
        assert not (out / "catalog.json").exists()
        disk.mount("size=20m")
        ended = run_command("build", path)
        assert ended.code == 0, ended.output
        check_catalog(out, corpus / "catalog")


@pytest.mark.parametrize("free", [120, 200, 240, 300, 320])
def test_build_over_another_catalog(corpus, tmp_path, free):
    with small_disk(tmp_path / "disk", "20m") as disk:
        out = disk.root / "catalog"
        shutil.copytree(corpus / "catalog", out)
        before = read_manifest(out)
        config = json.loads((corpus / "build.json").read_text()) | {"out": str(out)}
        path = tmp_path / "build.json"
        path.write_text(json.dumps(config | {"held_out_share": 0.5}))
        fill(disk, free)
        run_command("build", path).is_refused(str(disk.root), "no space left on device")
        assert disk.temporaries() == []
        assert not (out / "work" / "publish").exists()
        if read_manifest(out) != before or check(out).faults:
            raise Lost("the catalog before the build is damaged")
        (disk.root / "filler").unlink()
        ended = run_command("build", path)
        assert ended.code == 0, ended.output
        assert read_manifest(out).config["held_out_share"] == 0.5
        assert check(out).faults == ()


@pytest.mark.parametrize("free", [8, 60, 160, 260, 320])
def test_add(corpus, tmp_path, free):
    with small_disk(tmp_path / "disk", "20m") as disk:
        out = disk.root / "catalog"
        assert run_command("export", "catalog", corpus / "catalog", out).code == 0
        before = read_manifest(out)
        fill(disk, free)
        run_command("add", out, corpus / "add.json").is_refused(
            str(disk.root), "no space left on device"
        )
        assert disk.temporaries() == []
        if read_manifest(out) != before or check(out).faults:
            raise Lost("the version before the addition is damaged")
        (disk.root / "filler").unlink()
        ended = run_command("add", out, corpus / "add.json")
        assert ended.code == 0, ended.output
        assert read_manifest(out).version == 2
        assert check(out).faults == ()


def fill(disk, kilobytes):
    """Leave a number of kilobytes free."""
    block = b"0" * 4096
    with (disk.root / "filler").open("wb") as file:
        while shutil.disk_usage(disk.root).free > kilobytes * 1024:
            file.write(block)
            file.flush()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny catalog and a finished run on it."""
    folder = tmp_path_factory.mktemp("trained")
    catalog = write_tiny_catalog(folder / "catalog")
    ended = run_command("train", write_config(folder, catalog, folder / "run"))
    assert ended.code == 0, ended.output
    return folder


@pytest.mark.parametrize("kilobytes", [4, 12, 60, 140, 300, 460, 560])
def test_train(trained, tmp_path, kilobytes):
    with small_disk(tmp_path / "disk", f"{kilobytes}k") as disk:
        config = write_config(tmp_path, trained / "catalog", disk.root / "run")
        run_command("train", config).is_refused(str(disk.root), "no space left on device")
        assert disk.temporaries() == []
        assert not (disk.root / "run" / "model").exists()
        disk.mount("size=20m")
        ended = run_command("train", config)
        assert ended.code == 0, ended.output
        model = "model/model.safetensors"
        if (disk.root / "run" / model).read_bytes() != (trained / "run" / model).read_bytes():
            raise Wrong("another model than without the interruption")


def test_reports(corpus, trained, tmp_path):
    with small_disk(tmp_path / "disk", "16k") as disk:
        out = disk.root / "report.html"
        for place in (corpus / "catalog", trained / "run"):
            run_command("report", place, "--out", out).is_refused(str(out), "no space left")
            assert list(disk.root.iterdir()) == []
        disk.mount("size=20m")
        assert run_command("report", corpus / "catalog", "--out", out).code == 0
        assert out.read_text().rstrip().endswith("</html>")


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_export_documents(corpus, tmp_path, form):
    with small_disk(tmp_path / "disk", "8k") as disk:
        out = disk.root / "shards"
        words = ("export", "documents", corpus / "catalog", out, "--format", form)
        run_command(*words).is_refused(str(out), "no space left on device")
        assert list(disk.root.iterdir()) == []
        disk.mount("size=20m")
        ended = run_command(*words)
        assert ended.code == 0, ended.output


@pytest.mark.parametrize("kilobytes", [8, 60, 120])
@pytest.mark.parametrize("command", ["export", "fetch"])
def test_copies(corpus, tmp_path, command, kilobytes):
    with small_disk(tmp_path / "disk", f"{kilobytes}k") as disk:
        out = disk.root / "copy"
        words = (command, "catalog", corpus / "catalog", out)
        ended = run_command(*words)
        assert ended.code == 2, ended.output
        assert "Traceback" not in ended.output
        assert str(disk.root) in ended.output
        assert not (out / "catalog.json").exists()
        assert disk.temporaries() == []
        disk.mount("size=20m")
        ended = run_command(*words)
        assert ended.code == 0, ended.output
        check_catalog(out, corpus / "catalog")


def test_rebuild(corpus, tmp_path):
    with small_disk(tmp_path / "disk", "20m") as disk:
        out = disk.root / "catalog"
        assert run_command("export", "catalog", corpus / "catalog", out).code == 0
        fill(disk, 0)
        before = (out / "catalog.duckdb").read_bytes()
        run_command("rebuild", out).is_refused(str(out), "no space left on device")
        if (out / "catalog.duckdb").read_bytes() != before:
            raise Lost("catalog.duckdb")
        assert disk.temporaries() == []
        (disk.root / "filler").unlink()
        assert run_command("rebuild", out).code == 0
