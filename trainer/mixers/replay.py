"""Weights of an earlier run, followed token by token: what a small model learned, for a large one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from data_catalog.errors import UserError
from data_catalog.settings import overridden, parse, read_toml
from trainer.config import Train
from trainer.mixers import MixerState, Observation

_FOLLOWED_KEYS = (
    "objective",
    "answer_after",
    "update_every_steps",
)  # of the other run's mixture: all else of it is about measuring
_LOG_SUM_TOLERANCE = 1e-6  # from 1, that a row's weights may sum to


@dataclass(frozen=True)
class Replay:
    """At every stage the weights that the logged run sampled with when it had trained on as many tokens; after its end, its last ones.

    Stages of another length or batch size thus follow the same weights at the same tokens, changing where their own stages begin: a
    logged stage that begins and ends inside one of them is passed over. Nothing is measured.
    """

    first_token: Int[
        np.ndarray, " stages"
    ]  # tokens drawn before each logged stage, growing from 0; padding counts
    sampling: Float[np.ndarray, "stages basis"]
    step_tokens: int  # drawn by one step of this run; padding counts
    needs: frozenset[str] = frozenset()

    def start(self, basis: int) -> MixerState:  # noqa: ARG002 - the log's
        return self._at(0)

    def propose(self, state: MixerState, seen: Observation) -> MixerState:  # noqa: ARG002 - nothing is carried on
        return self._at(seen.step * self.step_tokens)

    def _at(self, tokens: int) -> MixerState:
        row = int(np.searchsorted(self.first_token, tokens, side="right")) - 1
        weights = self.sampling[row]
        return MixerState(np.log(np.maximum(weights, np.finfo(np.float64).tiny)), weights)


def read_replay(place: Path, names: Sequence[str], step_tokens: int) -> Replay:
    """Follow the weight log of a run.

    Args:
        place: the run's folder, or the weights.parquet in it. Its config.json is read too.
        names: of this run's basis: the log's must be the same, in the same order.
        step_tokens: sequences of a batch times their tokens.

    Raises:
        UserError: there is no whole run at `place`, it mixed another basis, or its log is damaged.
    """
    folder = place if place.is_dir() else place.parent
    log_file, config_file = folder / "weights.parquet", folder / "config.json"
    try:
        table = pq.read_table(log_file, columns=["first_sequence", "sampling"])
        settings = json.loads(config_file.read_text(encoding="utf-8"))
        basis, sequence_tokens = (
            settings["basis"],
            int(settings["config"]["training"]["sequence_tokens"]),
        )
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise UserError(
            f"{place}: no run whose weights could be followed ({error}); name a run's folder"
        ) from error
    if list(names) != list(basis):
        raise UserError(
            f"{place}: that run mixed {', '.join(basis)}, this one mixes {', '.join(names)}; take the same mixture settings for both"
        )
    first = table["first_sequence"].to_numpy() * sequence_tokens
    sampling = (
        np.array(table["sampling"].to_pylist(), np.float64)
        if table.num_rows
        else np.zeros((0, len(names)))
    )
    grows = len(first) > 0 and first[0] == 0 and bool((np.diff(first) > 0).all())
    whole = sampling.shape == (len(first), len(names)) and bool(
        (sampling >= 0).all() and (np.abs(sampling.sum(axis=1) - 1) < _LOG_SUM_TOLERANCE).all()
    )
    if not grows or not whole:
        raise UserError(
            f"{log_file}: is damaged: expected growing first_sequence from 0, and sampling weights that sum to 1; take another run"
        )
    return Replay(first, sampling, step_tokens)


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
                key: settings["mixture"][key]
                for key in _FOLLOWED_KEYS
                if key in settings["mixture"]
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
