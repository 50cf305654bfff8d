"""Whether a run may go on from what its folder holds: the same config, catalog and tokenizer, or a change that was declared."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_catalog.errors import UserError
from trainer.state.checkpoint import checkpoints

# What `--accept` takes, and the key of config.json that tells it; the cause before what it brings with it.
_IDENTITY_KEYS = {"tokenizer": "tokenizer", "catalog": "catalog", "config": "fingerprint"}
# A place in the token stream is a stage, a step in it and counters: with another value of these it means another place.
_UNCHANGEABLE_KEYS = (
    "seed",
    "mixture.mixer",
    "mixture.update_every_steps",
    "mixture.overhead_budget",
    "training.batch_sequences",
    "training.sequence_tokens",
)
_LISTED_CHANGES = 3  # changed settings in a message


def check_identity(
    out: Path,
    identity: Mapping[str, str],
    settings: Mapping[str, Any],
    accept: frozenset[str] = frozenset(),
) -> list[dict[str, Any]]:
    """See that what `out` holds belongs to this run.

    Args:
        identity: under the keys of config.json: `fingerprint` of the config, and those of the catalog and of the tokenizer.
        settings: the config as JSON, as config.json has it under `config`; parts of no consequence may be left out.
        accept: what may have changed on purpose: "config", "catalog", "tokenizer".

    Returns:
        The `history` that config.json must have from now on: a row for each change that was ever accepted, `when` (UTC), at which `step`
        (of the checkpoint that the run goes on from), `what`, and what it was and is, `old` and `new`: of a config only what changed.

    Raises:
        UserError: it holds a run of another config, catalog or tokenizer, or an accepted change would move the run's place in its data.
    """
    path, found = out / "config.json", checkpoints(out)
    if not path.is_file() or not (found or (out / "model").is_dir()):
        return []
    about = json.loads(path.read_text(encoding="utf-8"))
    history: list[dict[str, Any]] = about.get("history", [])
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for what, key in _IDENTITY_KEYS.items():
        if key not in identity or about.get(key) == identity[key]:
            continue
        old, new = (
            (about.get(key), identity[key])
            if what != "config"
            else _differences(about.get("config", {}), settings)
        )
        if what not in accept:
            raise UserError(_refusal(out, what, old, new))
        moved = [name for name in _UNCHANGEABLE_KEYS if what == "config" and name in new]
        if moved:
            raise UserError(
                f"{out}: a run cannot go on with another {moved[0]} (it was {old[moved[0]]}): its place in the data would be lost; "
                "put it back, or choose another out"
            )
        history.append(
            {
                "when": now,
                "step": int(found[-1].name) if found else None,
                "what": what,
                "old": old,
                "new": new,
            }
        )
    return history


def _refusal(out: Path, what: str, old: Any, new: Any) -> str:
    ways = f"choose another out, or say that it is meant with --accept {what}"
    if what == "tokenizer":
        return f"{out}: holds a run with another tokenizer (sha256 {old}, now {new}): its tokens had other meanings; {ways}"
    if what == "catalog":
        return f"{out}: holds a run on another catalog (fingerprint {old}, now {new}): it drew other texts; name that one, {ways}"
    changes = [f"{name} was {old[name]}, is {new[name]}" for name in new][:_LISTED_CHANGES] or [
        "written by another version of clustermix"
    ]
    more = f", and {len(new) - _LISTED_CHANGES} more" if len(new) > _LISTED_CHANGES else ""
    return (
        f"{out}: holds a run with another config ({'; '.join(changes)}{more}); put it back, {ways}"
    )


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What differs in the sections that `new` has, by dotted name; what a side does not have is None."""
    before, after = _flat({section: old.get(section) for section in new}), _flat(new)
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: before.get(name) for name in names}, {name: after.get(name) for name in names}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= (
            _flat(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else {prefix + name: value}
        )
    return flat
