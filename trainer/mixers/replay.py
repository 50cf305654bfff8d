"""Replay of an earlier run's weights, token by token: a large model follows a small one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from data_catalog.errors import UserError
from data_catalog.format.damage import read_table
from data_catalog.format.run_files import require_run_files
from data_catalog.format.run_record import RUN_RECORD, RunRecord, read_run_record
from data_catalog.format.tables import WEIGHTS
from data_catalog.settings import overridden, parse, read_toml
from trainer.config import Train
from trainer.mixers import MixerState, Observation
from trainer.mixers.simplex import log_weights
from trainer.mixture_config import ReplayOrder

# Settings taken from the other run's mixture. The others concern measurements.
_FOLLOWED_KEYS = ("objective", "answer_after", "update_every_steps")
_LOG_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Replay:
    """A mixer that follows a weight log.

    Every interval gets the weights that the logged run used after the same number of tokens, or its
    last weights after the end of the log. Runs with other interval lengths or batch sizes thus use
    the same weights at the same number of tokens. Logged intervals that start and end inside one
    interval of this run are skipped. Nothing is measured.
    """

    first_token: Int[np.ndarray, " intervals"]
    """Tokens drawn before each logged interval, including padding, increasing from 0."""
    sampling: Float[np.ndarray, "intervals basis"]
    """Sampling weights of each logged interval."""
    step_tokens: int
    """Tokens drawn per step of this run, including padding."""
    needs: frozenset[str] = frozenset()

    def start(self, basis: int) -> MixerState:  # noqa: ARG002 - protocol
        return self._at(0)

    def propose(self, state: MixerState, seen: Observation) -> MixerState:  # noqa: ARG002 - protocol
        return self._at(seen.step * self.step_tokens)

    def _at(self, tokens: int) -> MixerState:
        row = int(np.searchsorted(self.first_token, tokens, side="right")) - 1
        weights = self.sampling[row]
        return MixerState(log_weights(weights), weights)


def read_replay(
    place: Path,
    names: Sequence[str],
    step_tokens: int,
    order: ReplayOrder = "logged",
    seed: int = 0,
) -> Replay:
    """Return a mixer that follows the weight log of a run.

    Args:
        place: the run's folder, or the weights.parquet in it. Its config.json is read too.
        names: names of this run's basis members, which must be those of the log in the same order.
        step_tokens: sequences per batch times tokens per sequence.
        order: "logged"; "averaged" for the mean of the logged weights in every interval; "permuted"
            for the logged intervals in a random order. The two others are controls, which show
            whether the schedule matters or only where it leads.
        seed: seed of the random order.

    Raises:
        DamagedFileError: The log cannot be read, or differs from its checksum.
        UserError: There is no complete run at `place`, it has another basis, or its log is not
            one of a run.
    """
    folder = place if place.is_dir() else place.parent
    log_file, record = folder / "weights.parquet", read_run_record(folder)
    require_run_files(folder, [log_file.name])
    table = read_table(log_file, WEIGHTS, ["first_sequence", "sampling"])
    if tuple(names) != record.basis:
        raise UserError(
            f"mixture.file {place}: The basis of that run is {', '.join(record.basis)}. The basis "
            f"of this run is {', '.join(names)}. Use the same mixture settings for both."
        )
    first = table["first_sequence"].to_numpy() * record.config.training.sequence_tokens
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
            f"{log_file}: The weight log is damaged. Expected first_sequence to increase from 0 "
            "and sampling weights to sum to 1. Choose another run."
        )
    if order == "averaged" and len(sampling):
        lengths = np.diff(first, append=_logged_tokens(record))
        sampling = np.tile(np.average(sampling, axis=0, weights=lengths), (len(first), 1))
    elif order == "permuted":
        sampling = sampling[np.random.default_rng(seed).permutation(len(sampling))]
    return Replay(first, sampling, step_tokens)


def _logged_tokens(record: RunRecord) -> int:
    """Return the number of tokens of the whole logged run, including padding."""
    training = record.config.training
    return training.steps * training.batch_sequences * training.sequence_tokens


def replaying(run: Path, config: Path | None, out: Path, overrides: Sequence[str] = ()) -> Train:
    """Return the config of a run in `out` that uses the weights of `run`, token by token.

    Args:
        run: folder of the run to follow.
        config: TOML file for everything but the mixture. None: the config of `run`.
        out: folder of the new run.
        overrides: changed settings such as `"model.preset=350m"`.

    Raises:
        UserError: `run` has no config or weight log, `out` is `run`, or the config is not valid.
    """
    settings = read_run_record(run).config.model_dump()
    followed = parse(Train, settings, str(run / RUN_RECORD))
    if not (run / "weights.parquet").is_file():
        raise UserError(
            f"{run}: weights.parquet is missing. Choose a run that has started to train."
        )
    if out.resolve() == run.resolve():
        raise UserError(f"out {out}: This is the run to follow. Choose another folder.")
    if config is None:
        tree = {
            **settings,
            "mixture": {
                "repetition": followed.mixture.discount,
                **{
                    key: settings["mixture"][key]
                    for key in _FOLLOWED_KEYS
                    if key in settings["mixture"]
                },
            },
        }
    else:
        tree = read_toml(config)
    # The same weights mean the same as in the followed run.
    if isinstance(data := tree.get("data", {}), dict):
        tree["data"] = {"draw_by": followed.data.draw_by, **data}
    paths = [
        f"{key}={json.dumps(str(path), ensure_ascii=False)}"
        for key, path in (("mixture.file", run), ("out", out))
    ]
    tree = overridden(tree, ["mixture.mixer=replay", *paths])
    return parse(Train, overridden(tree, overrides), str(config or run / RUN_RECORD))
