"""A catalog from many ranges of leaves is sound, and has the documents of one from few."""

import json
import shutil

import pyarrow.compute as pc
import pytest

import data_catalog
from data_catalog.format.files import open_files
from data_catalog.format.offsets import read_offsets_table
from data_catalog.settings import parse
from data_catalog.verify import check
from pipeline.add import add
from pipeline.config import Addition, Build
from pipeline.run import build
from tests.helpers.tiny_corpus import SUBJECTS, sentences

MEGABYTE = 4_000  # bytes of a file, in place of a megabyte


@pytest.fixture(scope="module")
def divided(built, tmp_path_factory):
    """The small catalog, sorted again in many ranges, and an addition to it."""
    folder = tmp_path_factory.mktemp("divided")
    shutil.copytree(built[0], folder / "catalog")
    (folder / "more").mkdir()
    rows = [{"id": f"new-{i}", "text": sentences(SUBJECTS["music"], 7_000 + i)} for i in range(40)]
    (folder / "more" / "more.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {**built[1], "out": str(folder / "catalog"), "store": {"file_megabytes": 1}}
    more = {"source": {"kind": "jsonl", "path": str(folder / "more")}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.shard.stage._MEGABYTE", MEGABYTE)
        patch.setattr("pipeline.shard.ranges._MEGABYTE", MEGABYTE)
        patch.setattr("pipeline.shard.ranges.MINIMUM_COLUMN_BYTES", 1)
        root = build(parse(Build, settings, "test"))
        ranges = json.loads((root / "work" / "ranges" / "all" / "ranges.json").read_text())
        add(root, parse(Addition, more, "test"))
    return root, ranges["bounds"]


def stored(root):
    """Leaf, split and text of every document of the first version."""
    catalog = data_catalog.open(root, version=1)
    return sorted(catalog.sql("SELECT doc_id, leaf, split, text FROM documents").fetchall())


def test_a_top_level_domain_has_several_ranges(divided):
    assert divided[1] == [0, 1, 2, 3, 4]


def test_the_documents_are_those_of_a_catalog_from_one_range(built, divided):
    assert stored(divided[0]) == stored(built[0])


@pytest.mark.parametrize("version", [1, 2])
def test_the_files_are_numbered_without_gaps_in_the_order_of_the_leaves(divided, version):
    files = open_files(divided[0], version)
    offsets = read_offsets_table(files)
    for top in (0, 1):
        of_top = offsets.filter(pc.equal(offsets["top"], top)).sort_by("part")
        parts = sorted(set(of_top["part"].to_pylist()))
        assert parts == list(range(len(parts)))
        assert len(parts) > 4
        if version == 1:
            leaves = of_top["leaf"].to_pylist()
            assert leaves == sorted(leaves)


def test_the_version_and_its_addition_are_sound(divided):
    report = check(divided[0])
    assert report.faults == ()
    assert (report.version, report.documents) == (2, 200)
