"""Every record is a line of JSON that is in the file as soon as it is written."""

import json
from pathlib import Path

import numpy as np
import pytest

from trainer.state.metrics import Metrics


def test_a_line_is_strict_json_and_written_at_once(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "m", 0, writes=True)
    metrics.write(
        "update",
        scores=np.array([1.5, np.nan]),
        loss=float("inf"),
        nested={"a": (np.float64(2.0), np.int64(3), None)},
    )
    line = (tmp_path / "m").read_text()
    values = '"scores": [1.5, null], "loss": null, "nested": {"a": [2.0, 3, null]}'
    assert line == f'{{"kind": "update", {values}}}\n'
    assert metrics.size_bytes() == len(line)
    metrics.close()


def test_lines_after_the_checkpoint_are_removed_and_missing_ones_are_not_filled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "m"
    first = Metrics(path, 0, writes=True)
    first.write("train", step=1)
    kept = first.size_bytes()
    first.write("train", step=2)
    first.close()
    second = Metrics(path, kept, writes=True)
    second.write("train", step=2.5)
    second.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2.5]
    assert not caplog.records
    path.write_text(path.read_text()[:kept])
    third = Metrics(path, 10 * kept, writes=True)
    third.write("train", step=3)
    third.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 3]
    assert "29 of the 290 bytes" in caplog.text


def test_only_the_leading_process_writes(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "m", 0, writes=False)
    metrics.write("train", step=1)
    assert metrics.size_bytes() == 0
    assert not (tmp_path / "m").exists()


def test_a_torn_line_does_not_swallow_the_next_record(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_text('{"kind": "train", "step": 1}\n{"kind": "train", "st')
    metrics = Metrics(path, path.stat().st_size + 30, writes=True)
    metrics.write("train", step=2)
    metrics.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
    path.write_text("{" * 200_000)
    metrics = Metrics(path, 300_000, writes=True)
    metrics.write("train", step=3)
    metrics.close()
    assert path.read_text() == '{"kind": "train", "step": 3}\n'
