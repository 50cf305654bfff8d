"""Adding to a catalog in a store gives the catalog of an addition on a disk."""

import json
import shutil
import tempfile
import time
import uuid

import pytest

import data_catalog
import pipeline.parts
from data_catalog import lease as lease_module
from data_catalog.errors import UserError
from data_catalog.format.damage import DamagedFileError
from data_catalog.format.file_cache import cache_root
from data_catalog.format.layout import MANIFEST
from data_catalog.format.manifest import read_manifest, version_manifest
from data_catalog.place import Place
from data_catalog.settings import parse
from data_catalog.transfer.copy import export_catalog
from data_catalog.verify import check
from pipeline.add import add
from pipeline.config import Addition
from pipeline.run import one_by_one
from tests.helpers.tiny_corpus import SUBJECTS, sentences
from tests.pipeline.test_add import addition_of, write_more


@pytest.fixture(scope="module")
def grown(built, tmp_path_factory):
    """Return the manifest after an addition to a local catalog, and the addition."""
    folder = tmp_path_factory.mktemp("grown")
    root = folder / "catalog"
    shutil.copytree(built[0], root, ignore=shutil.ignore_patterns("work"))
    write_more(folder / "more")
    (folder / "music").mkdir()
    texts = [sentences(SUBJECTS["music"], 7000 + i) for i in range(30)]
    texts.append(sentences(SUBJECTS["music"], 3))  # a document of the corpus
    lines = [json.dumps({"text": text}) for text in texts]
    (folder / "music" / "train.jsonl").write_text("\n".join(lines) + "\n")
    target = {"name": "music", "path": str(folder / "music")}
    dedup = {"tiers": ["digest", "minhash", "semantic"]}
    addition = addition_of(folder / "more", targets=[target], dedup=dedup)
    add(root, addition)
    return read_manifest(root), addition


@pytest.fixture
def out(built, tmp_path, monkeypatch):
    """A copy of the catalog in a store, without a work folder. The cache is in `tmp_path`."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = Place(f"memory://{uuid.uuid4().hex}/catalog")
    export_catalog(built[0], place.url)
    return place


def objects(out):
    """Content of every object of the catalog but those of its work folder."""
    names = [name for name in out.sizes() if not name.startswith("work/")]
    return {name: (out / name).read() for name in names}


def test_the_new_version_is_that_of_a_disk(grown, out):
    local, addition = grown
    before = objects(out)
    assert add(out, addition) == out
    there = read_manifest(out)
    assert (there.fingerprint, there.files) == (local.fingerprint, local.files)
    assert (there.warnings, there.additions) == (local.warnings, local.additions)
    after = objects(out)
    assert {name for name in before if after[name] != before[name]} == {MANIFEST}
    assert after.keys() - before.keys() == {
        *(local.files.keys() - before.keys()),
        version_manifest(2),
    }
    assert [check(out, version).faults for version in (1, 2)] == [(), ()]
    assert not [name for name in (out / "work").names() if name.startswith("lease")]


def test_adding_the_same_again_changes_nothing_and_warns(grown, out, caplog):
    add(out, grown[1])
    before = out.sizes()
    add(out, grown[1])
    assert out.sizes() == before
    assert f"{out}: this addition is already in the catalog" in caplog.text


def test_further_additions_build_on_the_last_one(grown, out, tmp_path):
    add(out, grown[1])
    (tmp_path / "again").mkdir()
    more = [{"text": sentences(SUBJECTS["cooking"], 9000 + i)} for i in range(9)]
    (tmp_path / "again" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more))
    add(out, addition_of(tmp_path / "again"))
    assert (check(out).version, check(out).faults) == (3, ())
    assert read_manifest(out).documents == grown[0].documents + 9


def test_a_target_can_be_added_alone(grown, out):
    add(out, parse(Addition, {"targets": grown[1].targets}, "test"))
    assert (check(out).version, check(out).faults) == (2, ())
    manifest = read_manifest(out)
    assert list(manifest.targets) == ["space", "music"]
    assert manifest.warnings[-1].startswith("target music: 1 of its texts")


class Died(Exception):
    pass


def test_an_addition_that_dies_leaves_the_catalog_and_resumes(grown, out, monkeypatch):
    before = objects(out)

    def dying(stage, function, calls):
        if stage == "leakage":
            raise Died
        return one_by_one(stage, function, calls)

    with pytest.raises(Died):
        add(out, grown[1], dying)
    assert objects(out) == before

    def of_leakage(folder, *arguments):
        assert folder.parent.name == "leakage", "this part was made already"
        return made(folder, *arguments)

    made = pipeline.parts._make_in_store
    monkeypatch.setattr(pipeline.parts, "_make_in_store", of_leakage)
    add(out, grown[1])
    assert read_manifest(out).fingerprint == grown[0].fingerprint


def test_what_an_addition_leaves_that_died_when_it_published_is_replaced(
    grown, out, tmp_path, monkeypatch
):
    """Also by an addition of other documents, which gets the same version number."""
    write_more(tmp_path / "other")
    with pytest.MonkeyPatch.context() as patch:
        real = Place.write

        def dying(place, content):
            if place == out / MANIFEST:
                raise Died
            real(place, content)

        patch.setattr(Place, "write", dying)
        with pytest.raises(Died):
            add(out, addition_of(tmp_path / "other"))
    assert (out / version_manifest(2)).exists()
    assert (check(out).version, check(out).faults) == (1, ())
    with pytest.raises(UserError, match="version 2 does not exist"):
        read_manifest(out, 2)
    add(out, grown[1])
    assert read_manifest(out).fingerprint == grown[0].fingerprint
    assert check(out).faults == ()


def test_readers_find_the_earlier_version_until_the_end(grown, out, monkeypatch):
    opened = data_catalog.open(out)
    query = "SELECT count(*), sum(length(text)) FROM documents"
    expected = opened.sql(query).fetchall()
    real, seen = Place.write, []

    def write(place, content):
        if place == out / MANIFEST:
            seen.append(
                [data_catalog.open(out).sql(query).fetchall(), opened.sql(query).fetchall()]
            )
        real(place, content)

    monkeypatch.setattr(Place, "write", write)
    add(out, grown[1])
    assert seen == [[expected, expected]]
    assert opened.sql(query).fetchall() == expected
    assert data_catalog.open(out, 1).sql(query).fetchall() == expected
    assert data_catalog.open(out).sql(query).fetchall() > expected


def test_a_second_addition_is_refused_by_the_lease(grown, out):
    refusals = []

    def each(stage, function, calls):
        if stage == "embed":
            with pytest.raises(UserError) as refusal:
                add(out, grown[1])
            refusals.append(str(refusal.value))
        return one_by_one(stage, function, calls)

    add(out, grown[1], each)
    assert "another build is running here, process" in refusals[0]
    assert read_manifest(out).fingerprint == grown[0].fingerprint


def test_an_addition_that_lost_its_lease_publishes_nothing(grown, out, monkeypatch):
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 0.8)
    before = objects(out)

    def each(stage, function, calls):
        if stage == "leakage":  # another process takes the folder, as after this one was asleep
            (out / "work" / "lease-00000009.json").write(b"{}")
            time.sleep(1)
        return one_by_one(stage, function, calls)

    with pytest.raises(UserError, match="no longer holds the folder"):
        add(out, grown[1], each)
    assert objects(out) == before


def test_a_catalog_with_a_missing_or_cut_object_is_refused_before_any_work(grown, out):
    name = next(name for name in grown[0].files if name.startswith("tokens/"))
    content = (out / name).read()
    for change, reason in (
        (lambda place: place.remove(), "the file is missing"),
        (lambda place: place.write(content[:-1]), f"expected {len(content):,}"),
    ):
        change(out / name)
        with pytest.raises(DamagedFileError, match=f"{name}: .*{reason}"):
            add(out, grown[1])
        assert not [name for name in (out / "work").names() if name.startswith("add")]


def test_a_damaged_object_is_noticed_when_it_is_read(grown, out):
    name = next(name for name in grown[0].files if name.startswith("documents/"))
    content = bytearray((out / name).read())
    content[len(content) // 2] ^= 1
    (out / name).write(bytes(content))
    with pytest.raises(UserError, match=f"{name}: .*checksum differs"):
        add(out, grown[1])
    assert read_manifest(out).version == 1


def test_a_cache_that_is_emptied_between_stages_costs_downloads_only(grown, out):
    def each(stage, function, calls):
        shutil.rmtree(cache_root(), ignore_errors=True)
        return one_by_one(stage, function, calls)

    add(out, grown[1], each)
    assert read_manifest(out).fingerprint == grown[0].fingerprint
