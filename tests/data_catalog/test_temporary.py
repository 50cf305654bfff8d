import os
import subprocess
import time

import pytest

from data_catalog.temporary import (
    MAXIMUM_AGE,
    in_use,
    is_used,
    remove_unfinished,
    replacing,
    temporary_path,
)
from tests.helpers.leftovers import temporary_of_killed


def test_replacing_leaves_the_old_file_when_the_work_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


@pytest.mark.parametrize("old", ["folder", "file", "link"])
def test_replacing_with_a_folder_removes_what_was_there(tmp_path, old):
    part, elsewhere = tmp_path / "part", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "stale").touch()
    match old:
        case "folder":
            part.mkdir()
            (part / "stale").touch()
        case "file":
            part.touch()
        case "link":
            part.symlink_to(elsewhere)
    with replacing(part) as temporary:
        temporary.mkdir()
        (temporary / "fresh").touch()
    assert [p.name for p in part.iterdir()] == ["fresh"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "part"]
    assert [p.name for p in elsewhere.iterdir()] == ["stale"]


def test_a_folder_that_another_process_made_meanwhile_can_be_kept(tmp_path):
    with replacing(tmp_path / "part", keep=lambda: True) as temporary:
        temporary.mkdir()
        (tmp_path / "part").mkdir()
        (tmp_path / "part" / "theirs").touch()
    assert [p.name for p in (tmp_path / "part").iterdir()] == ["theirs"]
    assert [p.name for p in tmp_path.iterdir()] == ["part"]


def test_two_temporaries_of_one_process_have_different_names(tmp_path):
    with replacing(tmp_path / "a") as first, replacing(tmp_path / "a") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a").read_text() == "first"


def test_a_long_name_still_fits(tmp_path):
    path = tmp_path / ("é" * 120)
    with replacing(path) as temporary:
        temporary.write_text("x")
    assert path.read_text() == "x"


def aged(path, seconds):
    """Make a folder with one file, all of which was last changed some time ago."""
    path.mkdir()
    (path / "file").touch()
    for place in (path / "file", path):
        os.utime(place, (time.time() - seconds,) * 2)
    return path


def test_temporaries_of_this_machine_are_removed_when_their_process_has_ended(tmp_path):
    killed = aged(temporary_of_killed(tmp_path / "a"), 0)
    own = aged(temporary_path(tmp_path / "a"), 2 * MAXIMUM_AGE)
    other = subprocess.Popen(["sleep", "60"])
    name = own.name.replace(f".{os.getpid()}.", f".{other.pid}.")
    running = aged(own.with_name(name), 2 * MAXIMUM_AGE)
    try:
        remove_unfinished([tmp_path])
        assert (killed.exists(), own.exists(), running.exists()) == (False, True, True)
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
        remove_unfinished([tmp_path])
        assert (own.exists(), running.exists()) == (True, False)
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("name", [".a.other-host.7.{uuid}.tmp", ".a.7.tmp"])
def test_temporaries_of_other_machines_are_removed_after_a_day_without_a_change(tmp_path, name):
    path = aged(tmp_path / name.format(uuid="0" * 32), MAXIMUM_AGE - 60)
    remove_unfinished([tmp_path])
    assert path.exists()
    for place in (path, path / "file"):
        os.utime(place, (time.time() - MAXIMUM_AGE - 60,) * 2)
    (path / "new").touch()
    os.utime(path, (0, 0))
    remove_unfinished([tmp_path])
    assert path.exists()  # a file in it is new
    os.utime(path / "new", (0, 0))
    remove_unfinished([tmp_path])
    assert not path.exists()


def test_other_hidden_files_are_never_removed(tmp_path):
    for name in (".notes.tmp", ".a.b.tmp", "a.7.tmp", ".cache"):
        os.utime(aged(tmp_path / name, 0), (0, 0))
        os.utime(tmp_path / name / "file", (0, 0))
    remove_unfinished([tmp_path])
    assert len(list(tmp_path.iterdir())) == 4


def test_a_folder_is_used_until_its_process_ends(tmp_path):
    assert not is_used(tmp_path)
    with in_use(tmp_path):
        assert is_used(tmp_path)
    assert not is_used(tmp_path)
    temporary_of_killed(tmp_path / "used").touch()
    assert not is_used(tmp_path)
