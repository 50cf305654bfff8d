"""Files are placed with the checksums that their parts recorded."""

import pytest

from data_catalog.errors import UserError
from data_catalog.format.accounts import Account
from data_catalog.format.manifest import damaged_files
from pipeline.parts import make_part
from pipeline.publish.link_files import place_all, placed_names


@pytest.fixture
def part(tmp_path):
    def make(out):
        (out / "inner").mkdir()
        (out / "inner" / "a").write_bytes(b"first")
        (out / "b").write_bytes(b"second")
        return Account()

    return make_part(tmp_path / "work" / "tree", "f", make)


def test_the_sidecars_checksums_are_those_of_the_files(tmp_path, part):
    files = placed_names(list(place_all(part, tmp_path / "catalog" / "tree")), tmp_path / "catalog")
    assert sorted(files) == ["tree/b", "tree/inner/a"]
    assert damaged_files(tmp_path / "catalog", files) == {}


def test_a_file_that_was_damaged_before_it_was_placed_is_found_by_its_checksum(tmp_path, part):
    (part.folder / "b").write_bytes(b"sEcond")
    files = placed_names(list(place_all(part, tmp_path / "catalog")), tmp_path / "catalog")
    assert damaged_files(tmp_path / "catalog", files) == {"b": "checksum differs"}


def test_a_file_of_another_size_is_refused(tmp_path, part):
    (part.folder / "b").write_bytes(b"sec")
    with pytest.raises(UserError, match="3 bytes, expected 6"):
        list(place_all(part, tmp_path / "catalog"))
