import pytest

from data_catalog.errors import UserError
from pipeline.fetch.record import Entry, open_record


def test_the_last_entry_of_a_path_counts(tmp_path):
    with open_record(tmp_path / "root") as record:
        record.add(Entry(path="a", state="failed", detail="503", attempts=6))
        record.add(Entry(path="a", state="fetched", bytes=3, sha256="00", attempts=1))
        record.add(Entry(path="b", state="absent"))
    with open_record(tmp_path / "root") as record:
        assert {path: (entry.state, entry.bytes) for path, entry in record.entries.items()} == {
            "a": ("fetched", 3),
            "b": ("absent", 0),
        }
    assert len((tmp_path / "root" / "fetch.jsonl").read_text().splitlines()) == 3


def test_a_line_that_was_cut_short_counts_for_nothing_and_spoils_no_other(tmp_path):
    with open_record(tmp_path) as record:
        record.add(Entry(path="a", state="absent"))
    with (tmp_path / "fetch.jsonl").open("a") as file:
        file.write('{"path": "b", "sta')
    with open_record(tmp_path) as record:
        record.add(Entry(path="c", state="absent"))
    with open_record(tmp_path) as record:
        assert sorted(record.entries) == ["a", "c"]


def test_a_root_is_held_by_one_fetch_at_a_time(tmp_path):
    with (
        open_record(tmp_path),
        pytest.raises(UserError, match="another process is fetching"),
        open_record(tmp_path),
    ):
        pass
    with open_record(tmp_path):
        pass
