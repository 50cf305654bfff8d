"""Absolute paths in configs."""

from pathlib import Path

from data_catalog.settings import parse
from pipeline.absolute_paths import local_paths, with_absolute_paths
from pipeline.config import Build

CONFIG = {
    "out": "catalog",
    "source": {"kind": "jsonl", "path": "corpus"},
    "embed": {"model": "encoder"},
    "tokenizer": {"path": "org/name"},
    "labels": {"path": "labels.csv", "column": "label"},
    "targets": [
        {"name": "a", "path": "s3://bucket/a"},
        {"name": "b", "path": "b"},
        {"name": "c", "dataset": {"name": "data"}},
    ],
    "targets_below": "/targets",
}


def test_every_path_on_this_machine_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "encoder").mkdir()
    (tmp_path / "data").mkdir()
    config = parse(Build, CONFIG, "test")
    absolute = with_absolute_paths(config)
    assert local_paths(absolute) == {
        "out": tmp_path / "catalog",
        "source.path": tmp_path / "corpus",
        "embed.model": tmp_path / "encoder",
        "labels.path": tmp_path / "labels.csv",
        "targets[1].path": tmp_path / "b",
        "targets[2].dataset.name": tmp_path / "data",
        "targets_below": Path("/targets"),
    }
    assert str(absolute.targets[0].path) == "s3://bucket/a"
    assert absolute.tokenizer == config.tokenizer  # a name on the hub
    assert with_absolute_paths(absolute) == absolute
