"""The config of a run that follows the weights of another: from a small model to a large one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_catalog.errors import UserError
from data_catalog.settings import overridden, parse, read_toml
from trainer.config import Train

KEPT = (
    "objective",
    "answer_after",
    "update_every_steps",
)  # of the other run's mixture: all else of it is about measuring


def replaying(run: Path, config: Path | None, out: Path, overrides: Sequence[str] = ()) -> Train:
    """The config of a run in `out` that draws as `run` did when it had trained on as many tokens.

    Args:
        config: a TOML file for everything but the mixture; None: as `run` was trained, whose model, steps and catalog `overrides` change.
        overrides: such as `"model.preset=350m"`.

    Raises:
        UserError: `run` has no config and weight log, `out` is `run`, or the config is not valid.
    """
    settings = _config(run)
    if out.resolve() == run.resolve():
        raise UserError(f"out {out}: is the run that is followed; give another folder")
    if config is None:
        tree = {
            **settings,
            "mixture": {
                key: settings["mixture"][key] for key in KEPT if key in settings["mixture"]
            },
        }
    else:
        tree = read_toml(config)
    paths = [
        f"{key}={json.dumps(str(path), ensure_ascii=False)}"
        for key, path in (("mixture.file", run), ("out", out))
    ]
    tree = overridden(tree, ["mixture.mixer=replay", *paths])
    return parse(Train, overridden(tree, overrides), str(config or run / "config.json"))


def _config(run: Path) -> dict[str, Any]:
    """What `run` was trained with.

    Raises:
        UserError: as `replaying`.
    """
    try:
        settings = json.loads((run / "config.json").read_text(encoding="utf-8"))["config"]
        settings["mixture"]["mixer"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{run}: no run whose weights could be followed ({error}); name a folder that `clustermix train` wrote"
        ) from error
    if not (run / "weights.parquet").is_file():
        raise UserError(
            f"{run}: has no weight log yet (weights.parquet); follow a run that has begun to train"
        )
    return dict(settings)
