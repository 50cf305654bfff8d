import json
from pathlib import Path

import pytest

from data_catalog.errors import UserError
from data_catalog.format.manifest import (
    FORMAT,
    damaged,
    describe_files,
    fingerprint,
    read_manifest,
    replacing,
    write_json,
)


def test_a_fingerprint_is_of_the_content():
    assert fingerprint({"b": 1, "a": Path("x")}) == fingerprint({"a": "x", "b": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    with pytest.raises(TypeError, match="plain values, found object"):
        fingerprint(object())


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


def test_replacing_a_folder_drops_what_was_in_it(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "stale").touch()
    with replacing(tmp_path / "part") as temporary:
        temporary.mkdir()
        (temporary / "fresh").touch()
    assert [p.name for p in (tmp_path / "part").iterdir()] == ["fresh"]


def make_catalog(root: Path) -> None:
    (root / "a.bin").write_bytes(b"abc")
    write_json(
        root / "catalog.json",
        {"format": FORMAT, "version": 1, "files": describe_files(root, [root / "a.bin"])},
    )


def test_files_are_described_by_size_and_checksum(tmp_path):
    make_catalog(tmp_path)
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # SHA-256 of "abc", FIPS 180-2
    assert read_manifest(tmp_path)["files"] == {"a.bin": {"bytes": 3, "sha256": known}}


def test_damage_names_what_is_wrong(tmp_path):
    make_catalog(tmp_path)
    assert damaged(tmp_path, read_manifest(tmp_path)) == {}
    (tmp_path / "a.bin").write_bytes(b"abd")
    assert damaged(tmp_path, read_manifest(tmp_path)) == {"a.bin": "checksum differs"}
    (tmp_path / "a.bin").write_bytes(b"ab")
    assert damaged(tmp_path, read_manifest(tmp_path)) == {"a.bin": "2 bytes, expected 3"}
    (tmp_path / "a.bin").unlink()
    assert damaged(tmp_path, read_manifest(tmp_path)) == {"a.bin": "missing"}


def test_it_does_not_follow_a_path_out_of_the_catalog(tmp_path):
    write_json(
        tmp_path / "catalog.json",
        {
            "format": FORMAT,
            "version": 1,
            "files": {"../../etc/hostname": {"bytes": 1, "sha256": ""}},
        },
    )
    assert damaged(tmp_path, read_manifest(tmp_path)) == {
        "../../etc/hostname": "lies outside the catalog"
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no catalog here"),
        ("{", "not valid JSON"),
        (json.dumps({"format": 99}), "format 99, this version of clustermix reads format 2; build"),
    ],
)
def test_what_is_not_a_catalog_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "catalog.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_manifest(tmp_path)


def test_earlier_versions_are_read_and_later_ones_are_not_there(tmp_path):
    for version in (1, 2, 3):
        write_json(
            tmp_path / "versions" / f"{version:04d}" / "catalog.json",
            {"format": FORMAT, "version": version, "files": {}},
        )
    write_json(
        tmp_path / "catalog.json", {"format": FORMAT, "version": 2, "files": {}}
    )  # 3 was begun and never finished
    assert [read_manifest(tmp_path, version)["version"] for version in (None, 1, 2)] == [2, 1, 2]
    for version in (0, 3):
        with pytest.raises(UserError, match=f"has no version {version}; there are versions 1 to 2"):
            read_manifest(tmp_path, version)
