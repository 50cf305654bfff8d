"""Machines that differ end a run with one sentence that names the machine."""

import os
import socket
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.processes import run_in_process
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import write_config

pytestmark = pytest.mark.system


def train_on_a_machine(folder: Path, case: str) -> int:
    """Train as one of two machines with a process each, `first` and `second`."""
    import trainer.machines
    from trainer.__main__ import main

    second = os.environ["RANK"] == "1"
    os.environ |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    socket.gethostname = lambda: "second" if second else "first"
    trainer.machines.VISIBLE_SECONDS = 1.0
    settings = ["--set", "training.steps=12", "--set", f"out={folder / case}"]
    if second:
        settings += {
            "config": ["--set", "seed=7"],
            "catalog": ["--set", f"catalog={folder / 'none'}"],
            "other catalog": ["--set", f"catalog={folder / 'other'}"],
            "folder": ["--set", f"out={folder / 'elsewhere'}"],
        }.get(case, [])
        if case == "versions":
            trainer.machines.metadata.version = lambda name: f"{name} 9.9"  # type: ignore[assignment]
    errors = os.open(folder / f"{case}-{second:d}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(errors, 2)
    return main([str(folder / "run.toml"), *settings])


def train_in_every_case(folder: Path) -> None:
    from tests.helpers.forked import ended, team

    for case in ("config", "catalog", "other catalog", "folder", "versions"):
        assert ended(team(partial(train_on_a_machine, folder, case), 2)) == [2, 2], case
    assert ended(team(partial(train_on_a_machine, folder, "alike"), 2)) == [0, 0]


def test_a_machine_that_differs_is_named(tmp_path: Path) -> None:
    write_tiny_catalog(tmp_path / "catalog")
    write_tiny_catalog(tmp_path / "other", document_tokens=23)
    write_config(tmp_path, tmp_path / "catalog", tmp_path / "run")
    run_in_process(train_in_every_case, tmp_path)
    for case, words in (
        ("config", ("config", "first has")),
        ("catalog", ("no catalog", str(tmp_path / "none"))),
        ("other catalog", ("catalog of the run", "first has")),
        ("folder", ("elsewhere", "shared file system")),
        ("versions", ("torch 9.9", "constraints.txt")),
    ):
        for machine in "01":  # each shows the sentence
            said = (tmp_path / f"{case}-{machine}.txt").read_text().strip()
            assert said.startswith("clustermix: second: "), said
            assert "\n" not in said
            assert all(word in said for word in words), said
        assert not list(tmp_path.glob(f"{case}/model"))
    assert (tmp_path / "alike" / "model").is_dir()
    assert not list((tmp_path / "alike").glob(".machines*"))
