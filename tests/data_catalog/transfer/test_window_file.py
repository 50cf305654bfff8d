"""Records are returned as they were put, or not at all."""

import os

import pytest

from data_catalog.transfer.window_file import WindowFile

SIZE = 40


def content(key):
    return bytes([key % 251] * SIZE)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "windows"


def opened(path, maximum=64 * (SIZE + 16)):
    return WindowFile(path, SIZE, maximum)


def test_records_come_back_and_their_number_is_bounded(path):
    records = opened(path)
    assert records.places == 64
    for key in range(1000):
        assert records.put(key, content(key), "v1")
    found = [key for key in range(1000) if records.get(key, SIZE, "v1") is not None]
    assert 32 < len(found) <= 64
    assert all(records.get(key, SIZE, "v1") == content(key) for key in found)
    assert path.stat().st_size <= 64 * SIZE
    assert path.with_name("windows.index").stat().st_size == 64 * 16


def test_the_least_recently_used_is_replaced_unless_it_is_kept(path):
    records = opened(path, 16 * (SIZE + 16))  # all records can have all places
    for key in range(16):
        records.put(key, content(key), "")
    records.get(0, SIZE, "")
    records.touch(1)
    records.put(100, content(100), "", kept={2})
    assert [key for key in range(16) if key not in records] == [3]
    assert not records.put(101, content(101), "", kept={*range(16), 100})
    assert 101 not in records


def test_records_survive_the_process_but_not_a_change_of_their_origin(path):
    first = opened(path)
    for key in range(8):
        first.put(key, content(key), "v1")
    first.close()
    second = opened(path)
    assert second.get(3, SIZE, "v1") == content(3)
    assert second.get(4, SIZE, "v2") is None
    assert 4 not in second  # it is fetched again
    second.close()
    assert 3 not in opened(path, 32 * (SIZE + 16))  # another number of places


@pytest.mark.parametrize("damage", ["hole", "truncated", "other bytes", "removed"])
def test_what_was_lost_is_missing_and_never_zero(path, damage):
    first = opened(path)
    for key in range(30):
        first.put(key, content(key), "")
    records = first
    if damage == "removed":
        path.unlink()
        first.close()
        records = opened(path)
    elif damage == "truncated":
        os.truncate(path, 100)
    else:
        size = path.stat().st_size
        path.write_bytes(bytes(size) if damage == "hole" else os.urandom(size))
    found = [records.get(key, SIZE, "") for key in range(30)]
    assert all(each in (None, content(key)) for key, each in enumerate(found))
    assert found.count(None) >= 27
    records.put(5, content(5), "")
    assert records.get(5, SIZE, "") == content(5)


def test_two_users_have_a_file_each(tmp_path):
    one, two = (WindowFile.open_unused(tmp_path, "train", SIZE, 10_000) for _ in range(2))
    one.put(1, content(1), "")
    assert 1 not in two
    one.close()
    assert 1 in WindowFile.open_unused(tmp_path, "train", SIZE, 10_000)
