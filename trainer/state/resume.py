"""Check that a run folder belongs to this run, or that the change was declared.

A run resumes only with the same config, catalog and tokenizer, except for changes that the user
accepts with `--accept`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_catalog.errors import UserError
from data_catalog.format.run_record import RUN_RECORD, AcceptedChange, read_run_record
from trainer.config import Train, completed

# Choices of `--accept` and the key of config.json that identifies each. A cause comes before its
# consequences.
_IDENTITY_KEYS = {"tokenizer": "tokenizer", "catalog": "catalog", "config": "fingerprint"}
# Settings that determine the run's position in its data, which is an interval, a step in it and the
# number of draws per leaf. The saved position is valid only for the same values.
_UNCHANGEABLE_KEYS = (
    "seed",
    "mixture.mixer",
    "mixture.update_every_steps",
    "mixture.overhead_budget",
    "training.batch_sequences",
    "training.sequence_tokens",
)
_LISTED_CHANGES = 3  # maximum number of changed settings in a message


def check_identity(
    out: Path,
    identity: Mapping[str, str],
    settings: Mapping[str, Any],
    accept: frozenset[str] = frozenset(),
    *,
    checkpoint: Path | None = None,
) -> list[AcceptedChange]:
    """Check that the contents of `out` belong to this run.

    Args:
        out: the run's folder.
        identity: fingerprints of the config (`fingerprint`), the catalog and the tokenizer, under
            their keys in config.json.
        settings: the config as JSON, as in config.json under `config`. Sections without influence
            on the results can be left out.
        accept: the declared changes: any of "config", "catalog" and "tokenizer".
        checkpoint: folder of the checkpoint that the run resumes from, if there is one.

    Returns:
        The new `history` of config.json, with a row per change that was ever accepted: `when`
        (UTC), `step` of the checkpoint that the run resumed from, `what` changed, and its `old` and
        `new` value (for a config only the changed settings).

    Raises:
        UserError: The folder holds a run with another config, catalog or tokenizer, or an accepted
            change would lose the run's position in its data.
    """
    if not (out / RUN_RECORD).is_file() or not (checkpoint or (out / "model").is_dir()):
        return []
    record = read_run_record(out)
    before = record.model_dump(mode="json")
    history = list(record.history)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    old: Any
    new: Any
    for what, key in _IDENTITY_KEYS.items():
        if key not in identity or before[key] == identity[key]:
            continue
        old, new = (
            (before[key], identity[key])
            if what != "config"
            else _differences(completed(before["config"]), settings)
        )
        if what not in accept:
            raise UserError(_refusal(out, what, old, new))
        if what == "config":
            _refuse_lost_position(out, old, new)
        from trainer.state.checksums import step_of  # noqa: PLC0415 - imports torch

        history.append(
            AcceptedChange(
                when=now,
                step=step_of(checkpoint.name) if checkpoint else None,
                what=what,
                old=old,
                new=new,
            )
        )
    return history


def with_precision(config: Train, automatic: str) -> Train:
    """Return the config with the precision of the run in its folder, if its own is "auto".

    Args:
        config: the config of a run.
        automatic: the precision of a run that begins.
    """
    if config.training.precision != "auto":
        return config
    if (config.folder / RUN_RECORD).is_file():
        recorded = read_run_record(config.folder).model_dump(mode="json")["config"]
        automatic = recorded["training"]["precision"]
    training = config.training.model_copy(update={"precision": automatic})
    return config.model_copy(update={"training": training})


def position_settings(settings: Mapping[str, Any], identity: Mapping[str, str]) -> dict[str, Any]:
    """Return the values that a saved position in the data is valid for, by name.

    Args:
        settings: the config as JSON.
        identity: fingerprints as in `check_identity`.
    """
    flat = {"catalog": identity["catalog"], "tokenizer": identity["tokenizer"], **_flat(settings)}
    return {key: flat.get(key) for key in ("catalog", "tokenizer", *_UNCHANGEABLE_KEYS)}


def require_position(out: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that a saved position is valid for this run. Both are of `position_settings`.

    Raises:
        UserError: A value differs.
    """
    for what in ("tokenizer", "catalog"):
        if saved.get(what) != now[what]:
            raise UserError(
                f"{out}: The saved state is of another {what} (was {saved.get(what)}, is now "
                f"{now[what]}). Restore the {what}, or start another run."
            )
    _refuse_lost_position(out, saved, {k: v for k, v in now.items() if saved.get(k) != v})


def _refuse_lost_position(out: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse changed settings without which the position in the data would be lost."""
    for name in _UNCHANGEABLE_KEYS:
        if name in new:
            raise UserError(
                f"{out}: {name} was {old.get(name)} and is now {new[name]}. A run cannot resume "
                f"with another {name}, because its position in the data would be lost. Restore it, "
                "or change out."
            )


def _refusal(out: Path, what: str, old: Any, new: Any) -> str:
    """Return the message for an undeclared change."""
    remedy = f"change out, or declare the change with --accept {what}."
    if what == "tokenizer":
        return (
            f"{out}: The run in this folder used another tokenizer (sha256 {old}, now {new}), "
            f"whose token ids have other meanings. To continue, {remedy}"
        )
    if what == "catalog":
        return (
            f"{out}: The run in this folder used another catalog (fingerprint {old}, now {new}). "
            f"Use that catalog, {remedy}"
        )
    changes = [f"{name} was {old[name]} and is now {new[name]}" for name in new][:_LISTED_CHANGES]
    listed = "; ".join(changes) or "it was written by another version of clustermix"
    more = f"; and {len(new) - _LISTED_CHANGES} more" if len(new) > _LISTED_CHANGES else ""
    return (
        f"{out}: The run in this folder used another config ({listed}{more}). "
        f"Restore the settings, {remedy}"
    )


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the old and new values that differ, by dotted name, in the sections of `new`.

    A missing value is None.
    """
    before, after = _flat({section: old.get(section) for section in new}), _flat(new)
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: before.get(name) for name in names}, {name: after.get(name) for name in names}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a nested mapping by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
