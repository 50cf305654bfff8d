"""The final mixture of a finished run over domains, read from its folder."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from data_catalog.errors import UserError
from data_catalog.format import tables
from data_catalog.format.damage import read_table, reading
from data_catalog.format.distributions import read_distribution
from data_catalog.format.files import CatalogFiles
from data_catalog.format.offsets import read_offsets_table
from data_catalog.format.run_files import require_run_files
from data_catalog.format.run_record import MixtureSettings, RunRecord, read_run_record
from data_catalog.query.run_views import RUN_VIEW_FILES

_WITHOUT_KIND = ("natural", "uniform")  # distributions that have only one kind
MAXIMUM_REPLAYS = 100  # length of a chain of runs that replay each other


def last_mixture(run: Path, files: CatalogFiles) -> tuple[int, Float[np.ndarray, " domains"]]:
    """Return the level of a run's domains, and the last share of each domain. Shares sum to 1.

    The weight of a domain without training tokens is shared by the others, as in training. The
    caller must check that the run was trained on this catalog, see `RunRecord.catalog`.

    Raises:
        UserError: `run` is not a run folder, the run is not finished, or a member of its basis is
            not in the catalog.
    """
    record = read_run_record(run)
    log_file = run / RUN_VIEW_FILES["logs"]
    require_run_files(run, [log_file.name, "usage.parquet"])
    if not (run / "usage.parquet").is_file():
        raise UserError(f"weights {run}: the run is not finished. Wait for its end or resume it.")
    mixture = _mixture(run, record)
    log = read_table(log_file, tables.WEIGHTS)
    with reading(log_file):
        sampling = np.array(log["sampling"][log.num_rows - 1].as_py(), np.float64)
    level, names = record.level, record.basis
    if (
        len(sampling) != len(names)
        or not np.isfinite(sampling).all()
        or sampling.min() < 0
        or sampling.sum() <= 0
    ):
        raise UserError(
            f"weights {run}: weights.parquet has {len(sampling)} weights for {len(names)} members. "
            "Expected one weight of at least 0 per member. Give another run."
        )
    available = train_tokens(files, level)
    mixed = np.zeros(level)
    for name, weight in zip(names, sampling / sampling.sum(), strict=True):
        row = np.where(available > 0, _member(run, record, files, mixture, name, available), 0.0)
        if weight and row.sum() <= 0:
            raise UserError(
                f"weights {run}: {name} has weight only in domains without training documents. "
                f"Give a run that was trained on {files.root}."
            )
        mixed += weight * row / max(row.sum(), np.finfo(float).tiny)
    return level, mixed / mixed.sum()


def train_tokens(files: CatalogFiles, level: int) -> Int[np.ndarray, " domains"]:
    """Return the number of training tokens per domain."""
    offsets = read_offsets_table(files, ["leaf", "split", "tokens"])
    train = offsets.filter(pc.equal(offsets["split"], "train"))
    tokens = np.zeros(level, np.int64)
    np.add.at(
        tokens,
        files.levels.domains(train["leaf"].to_numpy().astype(np.int64), level),
        train["tokens"].to_numpy(),
    )
    return tokens


def _mixture(run: Path, record: RunRecord) -> MixtureSettings:
    """Return the settings that the members' names refer to. A replay has those of its source."""
    for _ in range(MAXIMUM_REPLAYS):
        mixture = record.config.mixture
        if mixture.mixer != "replay":
            return mixture
        followed = Path(mixture.file or "")
        record = read_run_record(followed if followed.is_dir() else followed.parent)
    raise UserError(
        f"weights {run}: the run follows a run that follows a run, without end. Name another run."
    )


def _member(
    run: Path,
    record: RunRecord,
    files: CatalogFiles,
    mixture: MixtureSettings,
    name: str,
    available: Int[np.ndarray, " domains"],
) -> Float[np.ndarray, " domains"]:
    """Return one row of the run's basis, computed as in `trainer.sampling.basis`."""
    level = record.level
    if mixture.basis == "domains" and name.isdecimal() and int(name) < level:
        return np.eye(1, level, int(name))[0]
    if mixture.mixer == "temperature":
        weights: Float[np.ndarray, " domains"] = (available / available.sum()) ** (
            1.0 / mixture.temperature
        )
        return weights
    # The table of "static" may be deleted, and "unimax" follows from data that may be thinned, so
    # their tokens are counted.
    if mixture.mixer in ("static", "unimax"):
        with reading(run / "usage.parquet"):
            usage = pq.read_table(run / "usage.parquet", columns=["leaf", "drawn_sequences"])
            leaves = usage["leaf"].to_numpy().astype(np.int64)
            filled = _tokens_per_sequence(files, record.config.training.sequence_tokens)[leaves]
            drawn = np.zeros(level)
            np.add.at(
                drawn,
                files.levels.domains(leaves, level),
                usage["drawn_sequences"].to_numpy() * filled,
            )
        return drawn
    return read_distribution(files, name, None if name in _WITHOUT_KIND else mixture.kind, level)


def _tokens_per_sequence(files: CatalogFiles, length: int) -> Float[np.ndarray, " leaves"]:
    """Return the mean number of labels in the training sequences of each leaf."""
    offsets = read_offsets_table(files, ["leaf", "split", "tokens"])
    train = offsets.filter(pc.equal(offsets["split"], "train"))
    leaf, leaves = train["leaf"].to_numpy().astype(np.int64), files.levels.leaves
    labels = np.maximum(train["tokens"].to_numpy().astype(np.int64) - 1, 0)
    sequences = np.bincount(leaf, -(-labels // length), leaves)
    return np.bincount(leaf, labels, leaves) / np.maximum(sequences, 1)
