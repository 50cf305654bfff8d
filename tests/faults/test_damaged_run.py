"""Damaged files of a run, in commands that read or resume it."""

import hashlib
import json
import os
import shutil

import pytest

from data_catalog.format.run_files import write_checksums
from tests.helpers.commands import Ended, run_command
from tests.helpers.damage import DAMAGES, damaged, judge
from tests.helpers.environments import TRAIN
from tests.helpers.faults import Lost, Wrong

pytestmark = pytest.mark.faults(
    "Damaged runs",
    tried=(
        "Each file of a finished run, and of a run that stopped after a checkpoint, missing, "
        "empty, cut in half, with a flipped bit or replaced by another file, in `report`, `query "
        "--runs`, `verify`, `export documents --weights`, a replay and a resumed training. "
        "Not tried: a flipped bit in the metrics of an unfinished run, which have no checksum."
    ),
    expected=(
        "The command ends with exit code 2 and a sentence that names the file and `clustermix "
        "verify`, or warns and names the file, or gives the same result as before. `verify` names "
        "the file. A run with a damaged newest checkpoint resumes from the one before, says so, "
        "and gives the same model."
    ),
)

CHECKPOINT = "checkpoints/0000000003"
CHECKPOINT_FILES = tuple(
    f"{CHECKPOINT}/{name}"
    for name in (
        *("model.safetensors", "optimizer.pt", "arrays.npz", "state.json", "weights.parquet"),
        "checksums.json",
    )
)
RESUMED = ("config.json", "metrics.jsonl", "weights.parquet", *CHECKPOINT_FILES)
FINISHED = (
    *("config.json", "metrics.jsonl", "weights.parquet", "usage.parquet", "weights.json"),
    *("checksums.json", "model/model.safetensors", "model/config.json", "model/tokenizer.json"),
)
RESULTS = ("usage.parquet", "weights.json", "checksums.json", "model", "report.html")


@pytest.fixture(scope="module")
def place(built, tmp_path_factory):
    """A folder with a catalog, a finished run, and the same run after three of four steps."""
    folder = tmp_path_factory.mktemp("damaged-run")
    shutil.copytree(built[0], folder / "catalog", ignore=shutil.ignore_patterns("work"))
    config = TRAIN.format(folder=folder) + "checkpoint = { every_steps = 1, keep = 4 }\n"
    (folder / "train.toml").write_text(config.replace("/unused", "/finished"))
    ended = run_command("train", folder / "train.toml")
    assert ended.code == 0, ended.output
    shutil.copytree(folder / "finished", folder / "stopped")
    for name in (*RESULTS, "checkpoints/0000000004", "checkpoints/0000000001"):
        path = folder / "stopped" / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    # Without its records after the checkpoint, a run is one that was killed sooner.
    state = json.loads((folder / "stopped" / CHECKPOINT / "state.json").read_bytes())
    os.truncate(folder / "stopped" / "metrics.jsonl", state["metrics_bytes"])
    write_checksums(folder / "stopped", [folder / "stopped" / "config.json"])
    (folder / "resume.toml").write_text(config.replace("/unused", "/resumed"))
    return folder


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(place, command, folder) -> tuple[Ended, str]:
    """Run a command. Return how it ended, and what it answered or wrote."""
    root, out = place / "catalog", place / "out"
    words = {
        "report": ("report", folder, "--catalog", root, "--out", out),
        "query": ("query", root, "--runs", folder, "SELECT * FROM weights", "--json"),
        "metrics": ("query", root, "--runs", folder, "SELECT * FROM metrics", "--json"),
        "verify": ("verify", folder),
        "export": (
            *("export", "documents", root, out),
            *("--weights", folder, "--tokens", "500"),
        ),
        "replay": ("train", place / "replay.toml"),
    }[command]
    written = {
        "report": out,
        "export": out / "data" / "shard_00000.jsonl",
        "replay": place / "replayed" / "model" / "model.safetensors",
    }
    replay = (place / "train.toml").read_text().replace("/finished", "/replayed")
    mixture = f'mixture = {{ mixer = "replay", update_every_steps = 2, file = "{folder}" }}'
    lines = [mixture if line.startswith("mixture") else line for line in replay.splitlines()]
    (place / "replay.toml").write_text("\n".join(lines))
    try:
        ended = run_command(*words)
        result = ended.output
        if ended.code == 0 and command in written:
            result = digest(written[command])
    finally:
        for left in (out, place / "replayed"):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)
    return ended, result


@pytest.fixture(scope="module")
def sound(place):
    """Each command and its result without damage, by command and run."""
    known = {}

    def find(command, folder):
        if (command, folder) not in known:
            known[command, folder] = run(place, command, folder)
            assert known[command, folder][0].code == 0, known[command, folder][0].output
        return known[command, folder]

    return find


def check(place, sound, folder, name, damage, command):
    expected = sound(command, folder)
    with damaged(folder / name, damage):
        ended, result = run(place, command, folder)
    if command == "report" and ended.code == 0 and result != expected[1]:
        warned = [line for line in ended.output.splitlines() if line.startswith("WARNING ")]
        if not any((folder / name).name in line for line in warned):
            raise Wrong(f"{name} is damaged, and another page is written without a word")
        return ended
    codes = (1, 2) if command == "verify" else (2,)
    judge(ended, result, expected, folder / name, codes)
    return ended


@pytest.mark.parametrize("command", ["report", "query", "metrics", "verify", "export", "replay"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run(place, sound, name, damage, command):
    ended = check(place, sound, place / "finished", name, damage, command)
    if command == "verify" and (name, damage) != ("checksums.json", "missing"):
        assert ended.code != 0, ended.output


@pytest.mark.parametrize("command", ["report", "query", "verify"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", RESUMED)
def test_a_stopped_run(place, sound, name, damage, command):
    if (name, damage) == ("metrics.jsonl", "flipped"):
        pytest.skip("the metrics of an unfinished run have no checksum")
    ended = check(place, sound, place / "stopped", name, damage, command)
    if command == "verify" and name.startswith("checkpoints"):
        assert ended.code == 1, ended.output


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run(place, name, damage):
    folder = place / "resumed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(place / "stopped", folder)
    record = json.loads((folder / "config.json").read_text())
    record["config"]["out"] = str(folder)
    (folder / "config.json").write_text(json.dumps(record))
    write_checksums(folder, [folder / "config.json"])
    DAMAGES[damage](folder / name)
    ended = run_command("train", place / "resume.toml")
    output = ended.output
    assert "Traceback" not in output, output
    if ended.code != 0:
        assert ended.code == 2, output
        assert name == "config.json", output
        assert name in output or "is not a run" in output, output
        return
    if digest(folder / "model" / "model.safetensors") != digest(
        place / "finished" / "model" / "model.safetensors"
    ):
        raise Wrong(f"{name} was damaged, and the resumed run has another model")
    if name.startswith("checkpoints"):
        assert "damaged: step 3" in output, output
        assert "checkpoint of step 2" in output, output
        assert name.rpartition("/")[2] in output, output
    if name != "metrics.jsonl" and len((folder / "metrics.jsonl").read_text().splitlines()) != len(
        (place / "finished" / "metrics.jsonl").read_text().splitlines()
    ):
        raise Lost(f"{name} was damaged, and records of metrics.jsonl are gone")
