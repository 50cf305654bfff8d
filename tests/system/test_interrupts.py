"""Ctrl-C on a terminal, and a signal to the process group. `tests/faults` has more of them."""

import pytest

from tests.helpers.environments import BUILD, TRAIN
from tests.helpers.interrupted import COMMAND, CTRL_C, GROUP_TERM, Running, in_part, stepped


@pytest.fixture(scope="module")
def prefect_home(tmp_path_factory):
    return tmp_path_factory.mktemp("prefect")


def test_ctrl_c_ends_a_build(built, tmp_path, prefect_home):
    config = tmp_path / "build.toml"
    config.write_text(BUILD.format(folder=built[0].parent))
    words = ("build", str(config), "--set", f"out={tmp_path}/catalog")
    running = Running([*COMMAND, *words], tmp_path, CTRL_C.terminal, prefect_home)
    running.wait_for(in_part(tmp_path / "catalog", "source"))
    running.interrupt(CTRL_C)


def test_sigterm_to_the_group_ends_a_training_after_a_checkpoint(built, tmp_path, prefect_home):
    config, run = tmp_path / "train.toml", tmp_path / "run"
    config.write_text(TRAIN.format(folder=built[0].parent))
    words = ("train", str(config), "--set", f"out={run}", "--set", "training.steps=100000")
    running = Running([*COMMAND, *words], tmp_path, GROUP_TERM.terminal, prefect_home)
    running.wait_for(stepped(run))
    running.interrupt(GROUP_TERM)
    assert list((run / "checkpoints").iterdir())
