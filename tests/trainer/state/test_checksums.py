"""A damaged checkpoint is never resumed from: the one before is, with one warning."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data_catalog import UserError
from tests.trainer.state.test_checkpoint import make, save
from trainer.distributed import Team
from trainer.state.checkpoint import read_checkpoint
from trainer.state.checksums import Choice, checkpoints, choose_checkpoint, set_aside

FILES = (
    "arrays.npz",
    "checksums.json",
    "model.safetensors",
    "optimizer.pt",
    "state.json",
    "weights.parquet",
)


@pytest.fixture(scope="module")
def sound_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    for step in (20, 40):
        save(out, step, *make(step))
    return out


@pytest.fixture
def run(sound_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound_run, tmp_path / "run"))


def choose(run: Path) -> Choice:
    return choose_checkpoint(run, Team(), read_checkpoint)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "flipped": flip,
    "replaced": lambda path: shutil.copy(path.with_name(FILES[FILES.index(path.name) - 1]), path),
    "pipe": replace_by_pipe,
    "loop": replace_by_loop,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_the_checkpoint_before_a_damaged_one_is_chosen(
    run: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    before, newest = checkpoints(run)
    DAMAGE[damage](newest / name)
    assert choose(run) == Choice(before, (newest.name,))
    [record] = caplog.records
    # A bit of a checksum is noticed as a fault of its file.
    named = "" if (name, damage) == ("checksums.json", "flipped") else name
    assert f"step 40 ({named}" in record.getMessage()
    assert record.getMessage().endswith("Resuming from the checkpoint of step 20.")
    set_aside(run, [newest.name])
    assert checkpoints(run) == [before]
    assert (run / "checkpoints" / "0000000040.damaged").is_dir()


def test_a_sound_checkpoint_is_chosen_without_a_word(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert choose(run) == Choice(checkpoints(run)[-1])
    assert choose(run / "none") == Choice(None)
    assert not caplog.records


def test_a_run_whose_checkpoints_are_all_damaged_says_what_to_do(run: Path) -> None:
    for folder in checkpoints(run):
        flip(folder / "optimizer.pt")
    with pytest.raises(UserError, match=r"40 \(optimizer.pt: checksum .* 20 \(opt.* or remove "):
        choose(run)


def without_checksums(folder: Path) -> None:
    """Make a checkpoint what earlier versions of clustermix wrote."""
    (folder / "checksums.json").unlink()
    about = json.loads((folder / "state.json").read_text())
    del about["checksums"]
    (folder / "state.json").write_text(json.dumps(about))


def test_a_checkpoint_of_an_earlier_version_is_resumed_from_and_named(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in checkpoints(run):
        without_checksums(folder)
    assert choose(run) == Choice(checkpoints(run)[-1])
    assert ["not verified" in record.getMessage() for record in caplog.records] == [True]
    os.truncate(checkpoints(run)[-1] / "optimizer.pt", 100)
    assert choose(run).folder == checkpoints(run)[0]
    assert "step 40 (optimizer.pt: " in caplog.records[1].getMessage()


def test_a_folder_of_another_step_is_damaged(run: Path) -> None:
    before, newest = checkpoints(run)
    shutil.rmtree(newest)
    shutil.copytree(before, newest)
    assert choose(run) == Choice(before, (newest.name,))
