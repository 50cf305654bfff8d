"""A run's config.json: every key is checked."""

import json

import pytest

from data_catalog.errors import UserError
from data_catalog.format.run_record import read_run_record
from tests.helpers.tiny_run import tiny_run_record


def paths(tree, prefix=()):
    """The path of every key in nested objects."""
    for key, value in tree.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from paths(value, (*prefix, key))


def write_changed(folder, path, change):
    """Write a record in which `change` was applied to the object that holds the last key."""
    record = tiny_run_record()
    node = record
    for key in path[:-1]:
        node = node[key]
    change(node, path[-1])
    (folder / "config.json").write_text(json.dumps(record))


def test_a_whole_record_is_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(tiny_run_record()))
    record = read_run_record(tmp_path)
    assert record.model_dump(mode="json") == {**tiny_run_record(), "verified": False}


def test_settings_of_the_trainer_are_kept(tmp_path):
    write_changed(tmp_path, ("config", "seed"), lambda node, key: node.__setitem__(key, 3))
    assert read_run_record(tmp_path).model_dump()["config"]["seed"] == 3


@pytest.mark.parametrize("path", list(paths(tiny_run_record())), ids=".".join)
def test_every_key_is_needed(tmp_path, path):
    write_changed(tmp_path, path, dict.pop)
    with pytest.raises(UserError, match=rf"config\.json: {'.'.join(path)}"):
        read_run_record(tmp_path)


@pytest.mark.parametrize("path", list(paths(tiny_run_record())), ids=".".join)
def test_every_key_has_its_type(tmp_path, path):
    write_changed(tmp_path, path, lambda node, key: node.__setitem__(key, {"of": "another type"}))
    with pytest.raises(UserError, match=rf"config\.json: {'.'.join(path)}"):
        read_run_record(tmp_path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("level", 0),
        ("world", 0),
        ("sequences", -1),
        ("basis", []),
        ("history", [{"when": "now"}]),
        ("config.training.steps", 0),
        ("config.training.batch_sequences", -4),
        ("config.mixture.temperature", 0),
        ("config.mixture.level", 0),
        ("cadence.update_every_steps", 0),
    ],
)
def test_every_number_has_its_range(tmp_path, path, value):
    keys = tuple(path.split("."))
    write_changed(tmp_path, keys, lambda node, key: node.__setitem__(key, value))
    with pytest.raises(UserError, match=rf"config\.json: {path}"):
        read_run_record(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"\xff"'])
def test_invalid_records_are_refused(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.json: .*JSON"):
        read_run_record(tmp_path)


def test_a_folder_without_a_record_is_refused(tmp_path):
    with pytest.raises(UserError, match=rf"{tmp_path}: .*config\.json"):
        read_run_record(tmp_path)
