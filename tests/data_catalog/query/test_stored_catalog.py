"""A catalog in a store is read as one on a disk, and nothing else in the store is."""

import tempfile
import uuid

import pytest

import data_catalog
from data_catalog.errors import UserError
from data_catalog.format import verified
from data_catalog.format.files import open_files
from data_catalog.place import Place
from data_catalog.transfer.copy import export_catalog
from data_catalog.verify import check


@pytest.fixture
def stored(built, tmp_path, monkeypatch):
    """A copy of the catalog in memory, and an empty cache."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = Place(f"memory://{uuid.uuid4().hex}/catalog")
    export_catalog(built[0], str(place))
    return place


@pytest.fixture
def ranges(monkeypatch):
    """Read files by ranges, and return the names of those that are read so."""
    asked = []
    real = Place.read_range

    def read_range(place, start, length):
        asked.append(place.url)
        return real(place, start, length)

    monkeypatch.setattr(Place, "read_range", read_range)
    monkeypatch.setattr(verified, "_SMALL_DOWNLOAD", 0)
    return asked


QUERIES = (
    "SELECT * FROM documents ORDER BY doc_id",
    "FROM domains ORDER BY level, domain",
    "FROM domain_docs(2, 1) ORDER BY doc_id",
    "FROM targets",
)


def test_queries_have_the_results_of_a_disk(built, stored):
    local, there = data_catalog.open(built[0]), data_catalog.open(str(stored))
    for query in QUERIES:
        assert there.table(query).equals(local.table(query))
    level = local.levels.granularities[-1]
    for domain in range(level):
        assert there.domain(level, domain).equals(local.domain(level, domain))
    assert str(stored) in repr(there)


def test_large_files_are_read_by_ranges(built, stored, ranges):
    there = data_catalog.open(stored)
    assert there.table(QUERIES[0]).equals(data_catalog.open(built[0]).table(QUERIES[0]))
    assert {url for url in ranges if "/documents/" in url}
    assert not list(there.root.rglob("documents/*/*.parquet"))


def test_one_domain_opens_the_files_that_have_it(built, stored, ranges):
    there = data_catalog.open(stored)
    level = there.levels.granularities[0]
    there._offsets  # noqa: B018 - its own requests
    ranges.clear()
    expected = data_catalog.open(built[0]).domain(level, 1, ["doc_id"])
    assert there.domain(level, 1, ["doc_id"]).equals(expected)
    assert {"/top=0001/" in url for url in ranges if "/documents/" in url} == {True}


def test_nothing_else_can_be_read(stored):
    (stored.parent / "secret.parquet").write(b"x")
    (stored / "documents" / "secret.parquet").write(b"x")
    there = data_catalog.open(stored)
    for path in (
        stored.parent / "secret.parquet",
        stored / "documents" / "secret.parquet",
        f"readonly://{there.root}/../secret.parquet",
        "/etc/hostname",
    ):
        with pytest.raises(UserError, match="disabled by configuration"):
            there.table(f"SELECT * FROM read_text('{path}')")
    unlisted = f"readonly://{there.root}/documents/secret.parquet"
    assert there.table(f"SELECT * FROM read_text('{unlisted}')").num_rows == 0


def test_a_damaged_file_is_refused_and_found(stored):
    name = "versions/0001/domains.parquet"
    content = (stored / name).read()
    (stored / name).write(content[:-1] + b"x")
    with pytest.raises(UserError, match=r"domains\.parquet"):
        data_catalog.open(stored).table("FROM domains")
    assert [fault.partition(":")[0] for fault in check(stored).faults] == [name]
    (stored / name).remove()
    [missing] = check(stored).faults
    assert missing.startswith(f"{name}: missing")


def test_a_sound_catalog_has_no_faults_and_the_cache_is_not_believed(built, stored):
    report = check(stored)
    assert report == check(built[0])
    (stored / "tree" / "tree.json").write(b"{}")
    assert any(fault.startswith("tree/tree.json") for fault in check(stored).faults)


def test_only_the_manifest_is_read_to_open_the_files(stored, monkeypatch):
    monkeypatch.setattr(Place, "download", None)
    assert open_files(stored).address == stored


def test_a_folder_without_a_catalog_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"memory://nothing/here: no catalog here"):
        data_catalog.open("memory://nothing/here")
