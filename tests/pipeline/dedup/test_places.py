import os
import tempfile

import duckdb
import pytest

from pipeline.config import Dedup
from pipeline.dedup.places import scratch_database
from pipeline.dedup.stage import dedup
from tests.helpers.leftovers import temporary_of_killed
from tests.helpers.parts import source_part


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The folder for temporary files."""
    folder = tmp_path / "local"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_the_memory_and_the_place_of_the_database_are_set(scratch):
    left = temporary_of_killed(scratch / "clustermix-dedup")
    left.mkdir()
    (left / "scratch.duckdb").touch()
    others = temporary_of_killed(scratch / "another-program")
    others.touch()
    with scratch_database(300) as connection:
        [(memory, spill)] = connection.sql(
            "SELECT current_setting('memory_limit'), current_setting('temp_directory')"
        ).fetchall()
        assert memory == "300.0 MiB"
        assert spill.startswith(f"{scratch}/")
        assert not left.exists()
        [folder] = scratch.glob(".clustermix-dedup.*")
        assert os.stat(folder).st_mode & 0o777 == 0o700
    assert list(scratch.iterdir()) == [others]


def test_the_files_of_the_database_are_removed_after_a_failure(scratch):
    def fail():
        with scratch_database(64) as connection:
            connection.sql("CREATE TABLE a AS SELECT range AS i FROM range(1_000_000)")
            assert list(scratch.rglob("*.duckdb"))
            connection.sql("SELECT * FROM missing")

    with pytest.raises(duckdb.CatalogException, match="missing"):
        fail()
    assert not list(scratch.iterdir())


def test_nothing_is_written_to_the_folder_of_the_part(scratch, tmp_path, monkeypatch):
    sources = [source_part(tmp_path / "source" / "a", ["p", "p"])]
    seen = []

    def fail(*_):
        seen.extend(path.name for path in (tmp_path / "work").rglob("*"))
        seen.append(len(list(scratch.rglob("*.duckdb"))))
        raise KeyError

    monkeypatch.setattr("pipeline.dedup.stage.exact_copies", fail)
    with pytest.raises(KeyError):
        dedup(sources, sources, [], tmp_path / "work" / "dedup", Dedup())
    [temporary, databases] = seen
    assert temporary.startswith(".dedup.")
    assert databases == 1
    assert not [*scratch.iterdir(), *(tmp_path / "work").iterdir()]
