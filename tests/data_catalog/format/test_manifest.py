import json
from pathlib import Path

import pytest

from data_catalog.errors import UserError
from data_catalog.format.manifest import (
    FileIdentity,
    damaged_files,
    describe_files,
    fingerprint,
    read_manifest,
    write_json,
)
from tests.helpers.manifests import tiny_manifest, write_manifest


def test_a_fingerprint_depends_on_the_content():
    assert fingerprint({"b": 1, "a": Path("x")}) == fingerprint({"a": "x", "b": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    with pytest.raises(TypeError, match="object"):
        fingerprint(object())


@pytest.fixture
def catalog(tmp_path):
    (tmp_path / "tree").mkdir()
    file = tmp_path / "tree" / "a.bin"
    file.write_bytes(b"abc")
    described = describe_files(tmp_path, [file])
    return write_manifest(
        tmp_path, files={name: entry.model_dump() for name, entry in described.items()}
    )


def test_files_are_described_by_size_and_checksum(catalog):
    # SHA-256 of "abc", FIPS 180-2
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    expected = {"tree/a.bin": FileIdentity(bytes=3, sha256=known)}
    assert read_manifest(catalog).files == expected


def test_damage_is_described_per_file(catalog):
    file = catalog / "tree" / "a.bin"
    assert damaged_files(catalog, read_manifest(catalog).files) == {}
    file.write_bytes(b"abd")
    assert damaged_files(catalog, read_manifest(catalog).files) == {
        "tree/a.bin": "checksum differs"
    }
    file.write_bytes(b"ab")
    assert damaged_files(catalog, read_manifest(catalog).files) == {
        "tree/a.bin": "2 bytes, expected 3"
    }
    file.unlink()
    assert damaged_files(catalog, read_manifest(catalog).files) == {"tree/a.bin": "missing"}


def test_a_link_out_of_the_catalog_is_not_followed(catalog):
    file = catalog / "tree" / "a.bin"
    file.unlink()
    file.symlink_to("/etc/hostname")
    assert damaged_files(catalog, read_manifest(catalog).files) == {
        "tree/a.bin": "lies outside the catalog"
    }


def test_a_manifest_is_read_as_written(catalog):
    content = json.loads((catalog / "catalog.json").read_text())
    assert "left_out" not in content
    encoder = {**content["encoder"], "windows": 1, "backend": "torch"}  # its defaults
    assert read_manifest(catalog).content() == {**content, "encoder": encoder}
    write_manifest(catalog, left_out=["tokens"])
    assert read_manifest(catalog).content()["left_out"] == ["tokens"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"{folder}: .*\(catalog\.json "),
        ("{", r"catalog\.json: .*JSON"),
        ("[]", r"catalog\.json: .*JSON"),
        ('"\xff"', r"catalog\.json: .*JSON"),
        ("[" * 100_000, r"catalog\.json: .*JSON"),
    ],
)
def test_other_folders_and_files_are_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "catalog.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=message.replace("{folder}", str(tmp_path))):
        read_manifest(tmp_path)


FILE = {"bytes": 1, "sha256": "0" * 64}
WRONG = [
    ("format", 99),
    ("format", "2"),
    ("version", 0),
    ("version", 10_000),
    ("version", 1.5),
    ("fingerprint", ""),
    ("granularities", []),
    ("granularities", [4, 6]),
    ("granularities", [2, True]),
    ("documents", -1),
    ("documents", "3"),
    ("tokens", None),
    ("encoder", {}),
    ("tokenizer", {"vocabulary": 0, "end_of_text": 0, "sha256": "00"}),
    ("targets", ["../law"]),
    ("targets", "law"),
    ("files", []),
    ("files", {"tree/a": {**FILE, "sha256": "abc"}}),
    ("files", {"tree/a": {**FILE, "bytes": -1}}),
    *(
        ("files", {name: FILE})
        for name in (
            "../../etc/hostname",
            "/etc/hostname",
            "a.bin",
            "tree/../../x",
            "tree//a",
            "elsewhere/a",
            "tree/a\nb",
            "versions/0001/catalog.json",
        )
    ),
    ("config", None),
    ("built_from", 3),
    ("parent", 3),
    ("additions", [{"fingerprint": "feed"}]),
    ("warnings", "none"),
    ("stage_seconds", {"tree": -1}),
    ("stage_seconds", {"tree": "long"}),
    ("left_out", ["tree"]),
    ("unheard_of", 1),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_every_key_has_its_type_and_range(tmp_path, key, value):
    write_manifest(tmp_path, **{key: value})
    with pytest.raises(UserError, match=rf"catalog\.json: {key}"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("key", tiny_manifest())
def test_every_key_is_needed(tmp_path, key):
    content = tiny_manifest()
    del content[key]
    write_json(tmp_path / "catalog.json", content)
    with pytest.raises(UserError, match=rf"catalog\.json: {key}"):
        read_manifest(tmp_path)


def test_several_faults_are_counted(tmp_path):
    write_manifest(tmp_path, version=0, tokens=-1)
    with pytest.raises(UserError, match=r"version: .*1 more"):
        read_manifest(tmp_path)


def test_earlier_versions_are_read_and_later_ones_are_refused(tmp_path):
    for version in (1, 2, 3):
        folder = tmp_path / "versions" / f"{version:04d}"
        folder.mkdir(parents=True)
        write_manifest(folder, version=version)
    write_manifest(tmp_path, version=2)  # 3 was begun and never finished
    assert [read_manifest(tmp_path, version).version for version in (None, 1, 2)] == [2, 1, 2]
    for version in (0, 3):
        with pytest.raises(UserError, match=f"version {version}"):
            read_manifest(tmp_path, version)
