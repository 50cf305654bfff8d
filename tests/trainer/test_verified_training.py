"""A training compares the catalog's files with their checksums, once on each machine."""

import json
from pathlib import Path

import pytest

from data_catalog.errors import UserError
from data_catalog.format import verified
from data_catalog.format.files import open_files
from data_catalog.format.layout import Layout
from tests.helpers.manifests import accept_files, change_manifest
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import tiny_config
from trainer.distributed import Team
from trainer.inputs import verify_inputs
from trainer.loop import train

SHORT = {"training": {"steps": 6}}


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = write_tiny_catalog(tmp_path / "catalog")
    paths = [path for path in root.rglob("*") if path.is_file() and path.name != "catalog.json"]
    accept_files(root, *paths)
    return root


def flip(path: Path) -> None:
    """Change one bit of a file in its place."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name",
    [
        "tokens/top=0000/part-0000.arrow",
        "versions/0001/offsets.parquet",
        "versions/0001/distributions.parquet",
        "targets/spe/tokens.arrow",
        "tokenizer/tokenizer.json",
    ],
)
def test_a_flipped_bit_is_refused_before_the_first_step(
    catalog: Path, tmp_path: Path, name: str
) -> None:
    flip(catalog / name)
    expected = rf"{name}: cannot be read \(checksum differs\)\. Run `clustermix verify`"
    with pytest.raises(UserError, match=expected):
        train(tiny_config(catalog, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_run_records_whether_the_catalog_was_verified(catalog: Path, tmp_path: Path) -> None:
    for name, verify in (("sound", True), ("unverified", False)):
        train(tiny_config(catalog, tmp_path / name, **SHORT), verify=verify)
        record = json.loads((tmp_path / name / "config.json").read_text())
        assert record["verified"] is verify


def test_an_unknown_token_is_refused_without_verification(catalog: Path, tmp_path: Path) -> None:
    change_manifest(catalog, tokenizer={"vocabulary": 20, "end_of_text": 0, "sha256": "00"})
    with pytest.raises(UserError, match=r"token \d+: not in .* vocabulary of 20\..* verify"):
        train(tiny_config(catalog, tmp_path / "run", **SHORT), verify=False)


def test_a_file_is_compared_once_until_it_changes(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    compare = verified.damaged_files

    def counted(root, files, on_progress=None):
        compared.append(set(files))
        return compare(root, files, on_progress)

    monkeypatch.setattr(verified, "damaged_files", counted)
    config, tokens = tiny_config(catalog, tmp_path / "run"), "tokens/top=0001/part-0000.arrow"
    verify_inputs(config, Team())
    assert tokens in compared[0]
    verify_inputs(config, Team())
    assert len(compared) == 1
    flip(catalog / tokens)
    for _ in range(2):  # what differs is not recorded
        with pytest.raises(UserError, match=tokens):
            verify_inputs(config, Team())
    assert compared[1:] == [{tokens}] * 2


@pytest.mark.parametrize("content", ["", "[]", '{"tokens/top=0001/part-0000.arrow": 7}'])
def test_a_damaged_record_is_written_again(catalog: Path, tmp_path: Path, content: str) -> None:
    config = tiny_config(catalog, tmp_path / "run")
    verify_inputs(config, Team())
    [record] = (tmp_path / "cache").rglob("*.json")
    whole = json.loads(record.read_text())
    assert whole.keys() == open_files(catalog).manifest.files.keys()
    record.write_text(content)
    verify_inputs(config, Team())
    assert json.loads(record.read_text()) == whole


def test_without_a_cache_every_training_compares(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    config = tiny_config(catalog, tmp_path / "run")
    verify_inputs(config, Team())
    flip(Layout(catalog).tokens(1))
    with pytest.raises(UserError, match="checksum differs"):
        verify_inputs(config, Team())
