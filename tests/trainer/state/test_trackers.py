"""Trackers get every record once, continue with the run, and never stop it."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data_catalog import UserError
from tests.helpers.tiny_training import tiny_config
from trainer.config import Train
from trainer.state.metrics import Metrics
from trainer.state.trackers import Trackers, check_trackers, tracked_values

MEMBERS = ("goal", "natural")
LOSS = {"step": 1, "loss": 2.5, "gradient_norm": float("nan")}


def config_with(tmp_path: Path, *to: str) -> Train:
    (tmp_path / "run").mkdir(exist_ok=True)
    return tiny_config(tmp_path / "catalog", tmp_path / "run", log={"to": to})


def opened(config: Train, size_bytes: int = 0) -> Metrics:
    path = config.folder / "metrics.jsonl"
    return Metrics(path, size_bytes, True, Trackers(config, MEMBERS))


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the steps and values by name, as TensorBoard reads them."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


class Recorded:
    """The functions that wandb and trackio share."""

    def __init__(self, fails: bool = False) -> None:
        self.begun: list[dict[str, Any]] = []
        self.sent: list[tuple[int, dict[str, float]]] = []
        self.finished, self.fails, self.id = 0, fails, "abc"

    def init(self, **options: Any) -> "Recorded":
        self.begun.append(options)
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        if self.fails:
            raise ConnectionError("no network")
        self.sent.append((step, values))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """Replace wandb by a module that records its calls: the package is too heavy for the tests."""
    module, recorded = types.ModuleType("wandb"), Recorded()
    module.init = recorded.init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return recorded


def test_a_record_has_named_numbers() -> None:
    assert tracked_values({"kind": "train", **LOSS}, MEMBERS) == (1, {"train/loss": 2.5})
    record = {"kind": "eval", "step": 3, "set": "target/test", "loss": 1.5, "error": None}
    assert tracked_values(record, MEMBERS) == (3, {"eval/target/test/loss": 1.5})
    record = {"kind": "update", "step": 4, "stage": 1, "sampling": [0.25, 0.75], "shares": {}}
    assert tracked_values(record, MEMBERS) == (
        4,
        {
            "update/stage": 1.0,
            "update/sampling/goal": 0.25,
            "update/sampling/natural": 0.75,
        },
    )
    assert tracked_values({"kind": "final", "steps": 9, "repeats": 2.0}, MEMBERS) == (
        9,
        {"final/repeats": 2.0},
    )


def test_tensorboard_gets_every_record_once_over_a_resume(tmp_path: Path) -> None:
    config = config_with(tmp_path, "tensorboard")
    metrics = opened(config)
    metrics.write("train", **LOSS)
    size = metrics.size_bytes()
    metrics.write("train", step=2, loss=2.0)  # behind the checkpoint
    metrics.close()
    metrics = opened(config, size)
    metrics.write("train", step=2, loss=2.0)  # again
    metrics.write("train", step=3, loss=1.5)
    metrics.close()
    found = scalars(config.folder / "tensorboard")
    assert found == {"train/loss": [(1, 2.5), (2, 2.0), (3, 1.5)]}


def test_a_tracker_that_is_new_to_a_run_gets_its_past(tmp_path: Path) -> None:
    config = config_with(tmp_path)
    metrics = opened(config)
    metrics.write("train", **LOSS)
    size = metrics.size_bytes()
    metrics.close()
    config = config_with(tmp_path, "tensorboard")
    metrics = opened(config, size)
    metrics.write("train", step=2, loss=2.0)
    metrics.close()
    assert scalars(config.folder / "tensorboard") == {"train/loss": [(1, 2.5), (2, 2.0)]}


def test_wandb_continues_its_run(tmp_path: Path, stand_in: Recorded) -> None:
    config = config_with(tmp_path, "wandb")
    metrics = opened(config)
    metrics.write("train", **LOSS)
    size = metrics.size_bytes()
    metrics.close()
    metrics = opened(config, size)
    metrics.write("train", step=2, loss=2.0)
    metrics.close()
    first, second = stand_in.begun
    assert (first["id"], second["id"]) == (None, "abc")
    assert first["project"] == "clustermix"
    assert first["name"] == "run"
    assert first["config"]["training"]["steps"] == 28
    assert stand_in.sent == [(1, {"train/loss": 2.5}), (2, {"train/loss": 2.0})]
    assert stand_in.finished == 2


def test_a_tracker_that_fails_is_left_out_with_one_warning(
    tmp_path: Path, stand_in: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in.fails = True
    config = config_with(tmp_path, "wandb", "tensorboard")
    metrics = opened(config)
    for step in range(3):
        metrics.write("train", step=step, loss=2.0)
    metrics.close()
    [warning] = [each.getMessage() for each in caplog.records]
    assert "wandb" in warning
    assert "no network" in warning
    assert len(scalars(config.folder / "tensorboard")["train/loss"]) == 3
    lines = (config.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2]


def test_a_missing_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.state.trackers.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"log\.to: .*trackio"):
        check_trackers(config_with(tmp_path, "trackio"))


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_the_real_package_takes_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pytest.importorskip(name, reason="too heavy for the environment of the tests")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    config = config_with(tmp_path, name)
    metrics = opened(config)
    metrics.write("train", **LOSS)
    metrics.close()
    assert json.loads((config.folder / "trackers.json").read_text())[name]


def test_the_log_does_not_change_the_identity_of_a_run(tmp_path: Path) -> None:
    plain, tracked = config_with(tmp_path), config_with(tmp_path, "tensorboard")
    assert plain.fingerprint() == tracked.fingerprint()
