import pytest

from data_catalog.errors import UserError
from pipeline.fetch.record import FetchEntry, open_record


def test_the_last_entry_of_a_path_counts(tmp_path):
    with open_record(tmp_path / "root") as record:
        record.add(FetchEntry(path="a", state="failed", detail="503", attempts=6))
        record.add(FetchEntry(path="a", state="fetched", bytes=3, sha256="00", attempts=1))
        record.add(FetchEntry(path="b", state="absent"))
    with open_record(tmp_path / "root") as record:
        assert {path: (entry.state, entry.bytes) for path, entry in record.entries.items()} == {
            "a": ("fetched", 3),
            "b": ("absent", 0),
        }
    assert len((tmp_path / "root" / "fetch.jsonl").read_text().splitlines()) == 3


def test_an_incomplete_line_is_ignored_and_does_not_spoil_the_next(tmp_path):
    with open_record(tmp_path) as record:
        record.add(FetchEntry(path="a", state="absent"))
    with (tmp_path / "fetch.jsonl").open("a") as file:
        file.write('{"path": "b", "sta')
    with open_record(tmp_path) as record:
        record.add(FetchEntry(path="c", state="absent"))
    with open_record(tmp_path) as record:
        assert sorted(record.entries) == ["a", "c"]


def test_a_root_is_locked_by_one_fetch_at_a_time(tmp_path):
    with (
        open_record(tmp_path),
        pytest.raises(UserError, match="another process"),
        open_record(tmp_path),
    ):
        pass
    with open_record(tmp_path):
        pass
