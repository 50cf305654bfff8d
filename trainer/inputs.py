"""Inputs of a run: the sequences of the corpus and of the target, and the basis."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from data_catalog.errors import UserError
from data_catalog.folders import check_utf8_path, foreign_names
from data_catalog.format.damage import DamagedFileError
from data_catalog.format.distributions import Basis
from data_catalog.format.files import CatalogFiles, open_files
from data_catalog.format.manifest import CATALOG_REMEDY
from data_catalog.format.records import read_record
from data_catalog.format.run_record import RUN_RECORD, read_run_record
from data_catalog.format.target_record import TARGET_RECORD, TargetRecord
from data_catalog.format.tokens import open_target, open_tokens
from trainer.config import Train
from trainer.distributed import Team
from trainer.evaluation.evaluate import EvaluationSet
from trainer.evaluation.held_out import held_out_sets
from trainer.evaluation.objectives import Objective, open_objective
from trainer.evaluation.tokenizer import byte_lengths, open_tokenizer
from trainer.model.fit import check_models
from trainer.sampling.basis import build_basis
from trainer.sampling.batches import Pool
from trainer.sampling.bounds import DrawBounds, available_sequences, build_bounds

_NOT_TRAINED_ON = ("documents/", "signals/", "verdicts/")


@dataclass(frozen=True)
class Inputs:
    """Everything that a run reads from its catalog."""

    files: CatalogFiles
    level: int
    """Number of domains: the granularity of weights, limits and budgets."""
    corpus: Pool
    """Train split of the corpus."""
    align: Pool
    """Align split of the target, on whose documents gradients are taken."""
    objective: Objective
    validation_sets: tuple[EvaluationSet, ...]
    """Sets that are evaluated during the run."""
    final_sets: tuple[EvaluationSet, ...]
    """Sets that are evaluated at the end of the run."""
    basis: Basis
    byte_lengths: Int[np.ndarray, " vocabulary"]
    """UTF-8 bytes per token."""

    @property
    def vocabulary(self) -> int:
        """Number of token ids of the catalog's tokenizer."""
        return self.files.manifest.tokenizer.vocabulary

    def bounds(self, config: Train) -> DrawBounds | None:
        """Return the limits on the run's draws; for errors see `build_bounds`."""
        training = config.training
        return build_bounds(
            config.data,
            self.corpus.sequences,
            self.basis.matrix.max(axis=0) > 0,
            level=self.level,
            length=training.sequence_tokens,
            draws=training.steps * training.batch_sequences,
        )

    def member_sizes(self) -> Float[np.ndarray, " basis"]:
        """Return the number of tokens that each basis member can draw, as shares of their sum."""
        sizes: Float[np.ndarray, " basis"] = (self.basis.matrix > 0) @ self.corpus.tokens()
        return sizes / sizes.sum()


def verify_inputs(config: Train, team: Team) -> None:
    """Compare the catalog's files with their checksums, except texts and tables about texts.

    One process per machine reads the files. A file that was found right before on this machine and
    has not changed since is not read again.

    Raises:
        DamagedFileError: A file is missing or damaged.
    """
    files = open_files(config.catalog, config.data.version)
    names = [name for name in files.manifest.files if not name.startswith(_NOT_TRAINED_ON)]
    damage: DamagedFileError | None = None
    if team.leads_machine:
        try:
            files.verified.compare(names)
        except DamagedFileError as error:
            damage = error
    found = team.gather(f"{damage.path}\0{damage.reason}" if damage else "")
    if first := next(filter(None, found), ""):
        path, _, reason = first.partition("\0")
        raise DamagedFileError(Path(path), reason)


def open_inputs(config: Train) -> Inputs:
    """Open the inputs of a run and check that they fit each other. Nothing is written.

    Raises:
        UserError: The catalog, the target, a distribution or a model is missing or does not fit,
            or `config.out` holds something else than a run.
    """
    _check_folder(config.out)
    files = open_files(config.catalog, config.data.version, config.training.sequence_tokens)
    check_models(config, files)
    level = config.mixture.level or files.levels.leaves
    files.levels.span(level)  # raises UserError if the tree has no such level
    name = f"target {config.target}: its align split"
    align = Pool(open_target(files, config.target, "align"), files.sequence_tokens, name)
    _check_encoder(files, config.target)
    corpus = _corpus(files, config, level)
    basis = build_basis(files, config.mixture, config.target, corpus.sequences)
    validation_sets, final_sets = held_out_sets(files, config, basis.names)
    return Inputs(
        files=files,
        level=level,
        corpus=corpus,
        align=align,
        objective=open_objective(files, config, align),
        validation_sets=validation_sets,
        final_sets=final_sets,
        basis=basis,
        byte_lengths=byte_lengths(open_tokenizer(files)),
    )


def _corpus(files: CatalogFiles, config: Train, level: int) -> Pool:
    """Open the train split, with each domain cut to `data.tokens_per_domain`."""
    length, domain_tokens = files.sequence_tokens, config.data.tokens_per_domain
    store = open_tokens(files, "train")
    available = (
        available_sequences(store.sequences(length), level, domain_tokens, length, config.seed)
        if domain_tokens
        else None
    )
    return Pool(store, length, f"{files.root}: its train split", available, config.seed)


def _check_folder(out: Path) -> None:
    """Check that a run may be written here: the folder is new, empty but for logs, or a run's.

    A run would replace files of others, such as a model's.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"out {out}: This is not a folder. Change out.")
    check_utf8_path(out, "out")
    others = foreign_names(out)
    if RUN_RECORD in others:  # a Hugging Face folder has a file of this name too
        read_run_record(out)
    elif others:
        raise UserError(
            f"out {out}: The folder holds {others[0]} and is not a run. "
            "Change out, or empty the folder."
        )


def _check_encoder(files: CatalogFiles, target: str) -> None:
    """Check that the target was embedded by the catalog's encoder."""
    record = read_record(TargetRecord, files.layout.target(target) / TARGET_RECORD, CATALOG_REMEDY)
    expected = files.manifest.encoder.comparable
    if record.encoder.comparable != expected:
        raise UserError(
            f"target {target}: It was embedded with {record.encoder.comparable}. The corpus was "
            f"embedded with {expected}. Build the target again with the catalog's encoder."
        )
