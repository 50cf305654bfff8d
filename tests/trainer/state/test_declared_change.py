"""A run resumes with the same config, catalog and tokenizer.

Other changes are declared and recorded.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from data_catalog import UserError
from data_catalog.format.manifest import write_json
from data_catalog.format.run_record import AcceptedChange
from tests.helpers.tiny_run import tiny_run_record
from trainer.state.resume import check_identity

EARLIER = AcceptedChange(when="2026-11-22T08:00:00", step=2, what="tokenizer", old="d", new="c")
IDENTITY = {"fingerprint": "a", "catalog": "b", "tokenizer": "c"}
TRAINING = tiny_run_record()["config"]["training"]
SETTINGS = {
    "target": "spe",
    "seed": 0,
    "optimizer": {"learning_rate": 0.1, "warmup_steps": 3},
    "training": {**TRAINING, "batch_sequences": 6},
}


def started_run(out: Path, **changed: object) -> Path:
    """Return a folder with the record of a run."""
    record = {**tiny_run_record(), **IDENTITY, **changed}
    record["config"] |= {**SETTINGS, "out": str(out)}
    write_json(out / "config.json", record)
    return out


def check(out: Path, *arguments: Any) -> list[AcceptedChange]:
    """Resume from the checkpoint of step 4."""
    return check_identity(out, *arguments, checkpoint=out / "checkpoints" / "0000000004")


def test_a_run_of_the_same_identity_resumes(tmp_path: Path) -> None:
    assert (
        check_identity(tmp_path, {**IDENTITY, "fingerprint": "x"}, SETTINGS) == []
    )  # nothing to lose yet
    assert check(started_run(tmp_path), IDENTITY, SETTINGS) == []
    history = [EARLIER.model_dump()]
    assert check(started_run(tmp_path, history=history), IDENTITY, SETTINGS) == [EARLIER]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"fingerprint": "x"},
            "another config .* version of clustermix.* --accept config",
        ),
        ({"catalog": "x"}, "fingerprint b, now x.*--accept catalog"),
        ({"tokenizer": "x"}, "sha256 c, now x.*--accept tokenizer"),
        ({"catalog": "x", "tokenizer": "x"}, "--accept tokenizer"),  # the cause of the two
    ],
)
def test_another_identity_is_refused_by_name(
    tmp_path: Path, changed: dict[str, str], sentence: str
) -> None:
    accept = {"config": "fingerprint", "catalog": "catalog", "tokenizer": "tokenizer"}
    others = frozenset(what for what, key in accept.items() if key not in changed)
    with pytest.raises(UserError, match=sentence):
        check(started_run(tmp_path), {**IDENTITY, **changed}, SETTINGS, others)


def test_the_refusal_names_the_settings_that_changed(tmp_path: Path) -> None:
    now = {**SETTINGS, "target": "other", "optimizer": {"learning_rate": 0.2, "clip": 1.0}}
    named = "target was spe .*other; optimizer.learning_rate was 0.1 .*0.2; "
    with pytest.raises(UserError, match=f"{named}optimizer.warmup_steps was 3 .*None; .* 1 more"):
        check(started_run(tmp_path), {**IDENTITY, "fingerprint": "x"}, now)


def test_an_accepted_change_is_recorded(tmp_path: Path) -> None:
    now = {**SETTINGS, "optimizer": {"learning_rate": 0.2, "warmup_steps": 3}}
    identity = {**IDENTITY, "fingerprint": "x", "catalog": "y"}
    earlier, *changes = check(
        started_run(tmp_path, history=[EARLIER.model_dump()]),
        identity,
        now,
        frozenset({"config", "catalog"}),
    )
    for change in changes:
        assert timedelta(0) <= datetime.now(UTC) - datetime.fromisoformat(change.when)
    learning_rate = {
        "old": {"optimizer.learning_rate": 0.1},
        "new": {"optimizer.learning_rate": 0.2},
    }
    catalog = {"step": 4, "what": "catalog", "old": "b", "new": "y"}
    assert earlier == EARLIER
    assert [change.model_dump(exclude={"when"}) for change in changes] == [
        catalog,
        {"step": 4, "what": "config", **learning_rate},
    ]


def test_changes_that_lose_the_position_in_the_data_are_refused(tmp_path: Path) -> None:
    now = {**SETTINGS, "training": {**TRAINING, "batch_sequences": 8}}
    with pytest.raises(UserError, match=r"training.batch_sequences was 6 and is now 8"):
        check(started_run(tmp_path), {**IDENTITY, "fingerprint": "x"}, now, frozenset({"config"}))
