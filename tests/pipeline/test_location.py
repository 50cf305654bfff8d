from pathlib import Path

import pytest
from upath import UPath

from data_catalog.errors import UserError
from data_catalog.format.manifest import fingerprint
from data_catalog.settings import Settings, parse
from pipeline.location import Location, is_file_fault, is_local


class Place(Settings):
    path: Location


def test_a_path_is_a_path_and_is_written_as_one_string():
    place = parse(Place, {"path": "/a/b"}, "test")
    assert isinstance(place.path, Path)
    assert (place.path, place.model_dump(mode="json")) == (Path("/a/b"), {"path": "/a/b"})
    assert (
        parse(Place, {"path": Path("/a/b")}, "test")
        == place
        == parse(Place, {"path": "file:///a/b"}, "test")
    )
    assert Place.model_validate_json(place.model_dump_json()) == place
    assert fingerprint(place) == fingerprint({"path": "/a/b"})


def test_a_url_is_written_as_it_was_given():
    place = parse(Place, {"path": "memory://bucket/a"}, "test")
    assert (is_local(place.path), place.model_dump(mode="json")) == (
        False,
        {"path": "memory://bucket/a"},
    )
    assert Place.model_validate_json(place.model_dump_json()) == place


@pytest.mark.parametrize(
    ("value", "sentence"),
    [(7, "expected a path or a URL"), ("nosuch://a", "Unsupported filesystem: 'nosuch'")],
)
def test_what_is_neither_is_refused_by_its_key(value, sentence):
    with pytest.raises(UserError, match=f"test: path: .*{sentence}"):
        parse(Place, {"path": value}, "test")


def test_only_what_another_try_cannot_help_is_the_files_fault():
    here, there = Path("/a"), UPath("memory://a")
    assert is_file_fault(OSError(5, "I/O error"), here)
    assert [
        is_file_fault(error, there)
        for error in (FileNotFoundError(), PermissionError(), OSError("not Parquet"))
    ] == [True] * 3
    assert [
        is_file_fault(error, there)
        for error in (ConnectionError(), TimeoutError(), OSError(5, "I/O error"))
    ] == [False] * 3
