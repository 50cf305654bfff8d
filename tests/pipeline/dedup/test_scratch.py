import os
import tempfile

import duckdb
import pytest

from pipeline.config import Dedup
from pipeline.dedup.scratch import scratch_database
from tests.helpers.leftovers import temporary_of_killed
from tests.helpers.shuffled import deduplicate, make_parts


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


@pytest.mark.parametrize(("megabytes", "threads"), [(64, 1), (300, 2), (1_024, 8), (9_999, 16)])
def test_little_memory_is_shared_by_few_threads(scratch, monkeypatch, megabytes, threads):
    """With 64 MB and two threads, a sort of the bands of 200,000 documents ran out of memory."""
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    with scratch_database(megabytes) as connection:
        assert connection.sql("SELECT current_setting('threads')").fetchall() == [(threads,)]


def test_the_files_of_the_database_are_removed_after_a_failure(scratch):
    def fail():
        with scratch_database(64) as connection:
            connection.sql("CREATE TABLE a AS SELECT range AS i FROM range(1_000_000)")
            assert list(scratch.rglob("*.duckdb"))
            connection.sql("SELECT * FROM missing")

    with pytest.raises(duckdb.CatalogException, match="missing"):
        fail()
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("stage", ["copies", "pairs", "resolve"])
def test_nothing_is_written_to_the_folder_of_the_part(scratch, tmp_path, monkeypatch, stage):
    module = {"copies": "exact"}.get(stage, stage)
    made = [make_parts(tmp_path, "a", ("p", None, None), ("p", None, None))]
    seen = []

    def fail(*_):
        seen.extend(path.name for path in (tmp_path / "work" / stage).rglob("*"))
        seen.append(len(list(scratch.rglob("*.duckdb"))))
        raise KeyError

    monkeypatch.setattr(f"pipeline.dedup.{module}.stream", fail)
    with pytest.raises(KeyError):
        deduplicate(tmp_path / "work", made, Dedup(tiers=("digest", "minhash")))
    [temporary, *files, databases] = seen
    assert temporary.startswith(".")
    assert databases == 1
    assert not any("duckdb" in file for file in files)
    assert not [*scratch.iterdir(), *(tmp_path / "work" / stage).iterdir()]
