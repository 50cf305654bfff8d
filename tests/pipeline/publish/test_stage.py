"""A published catalog has exactly the built files, and a grown catalog is not replaced."""

import shutil

import pytest

from data_catalog.errors import UserError
from data_catalog.format.layout import Layout
from data_catalog.format.manifest import read_manifest, write_json
from data_catalog.settings import parse
from pipeline.config import Build
from pipeline.run import build


@pytest.fixture
def grown(built, tmp_path):
    """The built catalog, moved, with a second version that is like the first."""
    root = tmp_path / "catalog"
    shutil.copytree(built[0], root)
    manifest = {**read_manifest(root).content(), "version": 2}
    write_json(Layout(root, 2).version_manifest, manifest)
    write_json(root / "catalog.json", manifest)
    return root


def test_the_manifest_is_kept_with_its_version(built):
    layout = Layout(built[0])
    assert layout.manifest.read_bytes() == layout.version_manifest.read_bytes()
    manifest = read_manifest(built[0])
    assert (manifest.version, manifest.parent, manifest.additions) == (1, None, ())
    assert "versions/0001/catalog.json" not in manifest.files


def test_the_manifest_lists_exactly_the_files(built):
    content = {
        path.relative_to(built[0]).as_posix() for path in built[0].rglob("*") if path.is_file()
    }
    outside = {
        name
        for name in content
        if name.startswith(("work/", "catalog.")) or name.endswith("catalog.json")
    }
    assert content - outside == set(read_manifest(built[0]).files)
    assert {"tree/tree.json", "tree/centroids.npz", "versions/0001/removed.parquet"} < content


def test_building_again_leaves_a_grown_catalog_alone(built, grown):
    before = {
        path: path.stat().st_mtime_ns
        for path in grown.rglob("*")
        if path.is_file() and "work" not in path.parts
    }
    build(parse(Build, {**built[1], "out": str(grown)}, "test"))
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_build_does_not_replace_a_grown_catalog(built, grown):
    with pytest.raises(UserError, match=r"^out .*catalog: .* additions"):
        build(parse(Build, {**built[1], "out": str(grown), "held_out_share": 0.5}, "test"))
    assert read_manifest(grown).version == 2
