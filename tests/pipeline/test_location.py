import errno
from pathlib import Path

import pytest
from upath import UPath

from data_catalog.errors import UserError
from data_catalog.format.manifest import fingerprint
from data_catalog.settings import Settings, parse
from pipeline.location import Location, is_file_fault, is_local


class Section(Settings):
    path: Location


def test_a_path_is_written_as_one_string():
    section = parse(Section, {"path": "/a/b"}, "test")
    assert isinstance(section.path, Path)
    assert (section.path, section.model_dump(mode="json")) == (Path("/a/b"), {"path": "/a/b"})
    assert (
        parse(Section, {"path": Path("/a/b")}, "test")
        == section
        == parse(Section, {"path": "file:///a/b"}, "test")
    )
    assert Section.model_validate_json(section.model_dump_json()) == section
    assert fingerprint(section) == fingerprint({"path": "/a/b"})


def test_a_url_is_written_as_it_was_given():
    section = parse(Section, {"path": "memory://bucket/a"}, "test")
    assert (is_local(section.path), section.model_dump(mode="json")) == (
        False,
        {"path": "memory://bucket/a"},
    )
    assert Section.model_validate_json(section.model_dump_json()) == section


@pytest.mark.parametrize(
    ("value", "message"),
    [(7, "a path or a URL"), ("nosuch://a", "Unsupported filesystem: 'nosuch'")],
)
def test_other_values_are_refused_by_their_key(value, message):
    with pytest.raises(UserError, match=f"test: path: .*{message}"):
        parse(Section, {"path": value}, "test")


def test_only_permanent_errors_are_faults_of_the_file():
    local, remote = Path("/a"), UPath("memory://a")
    assert is_file_fault(OSError(5, "I/O error"), local)
    assert not is_file_fault(OSError(errno.EMFILE, "Too many open files"), local)
    assert [
        is_file_fault(error, remote)
        for error in (FileNotFoundError(), PermissionError(), OSError("not Parquet"))
    ] == [True] * 3
    assert [
        is_file_fault(error, remote)
        for error in (ConnectionError(), TimeoutError(), OSError(5, "I/O error"))
    ] == [False] * 3
