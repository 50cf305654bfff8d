"""An open catalog: one version, its levels and its paths."""

import pytest

from data_catalog.errors import UserError
from data_catalog.format.files import open_files
from tests.helpers.manifests import tiny_files, write_manifest


def test_the_newest_version_is_opened_by_default(tmp_path):
    write_manifest(tmp_path, version=3)
    folder = tmp_path / "versions" / "0002"
    folder.mkdir(parents=True)
    write_manifest(folder, version=2, granularities=[8])
    newest, earlier = open_files(tmp_path), open_files(tmp_path, 2, sequence_tokens=16)
    assert (newest.version, newest.layout.tables.name, newest.sequence_tokens) == (3, "0003", 0)
    assert newest.levels.granularities == (2, 4)
    assert (earlier.version, earlier.layout.tables.name, earlier.sequence_tokens) == (2, "0002", 16)
    assert earlier.levels.granularities == (8,)


def test_a_missing_folder_is_named(tmp_path):
    files = tiny_files(tmp_path, left_out=["tokens"])
    files.require("documents")
    with pytest.raises(UserError, match=f"{tmp_path}.* tokens"):
        files.require("tokens")
