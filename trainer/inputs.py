"""Inputs of a run: the sequences of the corpus and of the target, and the basis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from data_catalog.errors import UserError
from data_catalog.folders import check_utf8_path, foreign_names
from data_catalog.format.damage import DamagedFileError
from data_catalog.format.distributions import Basis, read_distribution, to_leaves
from data_catalog.format.files import CatalogFiles
from data_catalog.format.manifest import CATALOG_REMEDY
from data_catalog.format.records import read_record
from data_catalog.format.run_record import RUN_RECORD, read_run_record
from data_catalog.format.target_record import TARGET_RECORD, TargetRecord
from data_catalog.format.tokens import open_target, open_tokens
from data_catalog.lease import is_lease
from data_catalog.place import Folder, Place
from data_catalog.transfer.mirror import local_folder, open_catalog, repair_mirror
from trainer.config import Train
from trainer.distributed import Team
from trainer.evaluation.evaluate import EvaluationSet
from trainer.evaluation.held_out import held_out_sets
from trainer.evaluation.objectives import Objective, TextLoss, open_objective
from trainer.evaluation.tokenizer import byte_lengths, open_tokenizer
from trainer.mixers import Mixer, MixerState
from trainer.mixers.choose import first_state, make_mixer
from trainer.mixers.prior import automatic_share, member_prior, wanted_shares
from trainer.mixture_config import GENERAL, Mixture
from trainer.model.fit import check_models
from trainer.model.optimizer import learning_rate_at
from trainer.sampling.basis import BUILT_IN_DISTRIBUTIONS, build_basis
from trainer.sampling.batches import Pool
from trainer.sampling.bounds import (
    DrawBounds,
    available_sequences,
    build_bounds,
)
from trainer.sampling.fill import Fill
from trainer.sampling.repetition import discounted, thinned_sequences

_NOT_TRAINED_ON = ("documents/", "signals/", "verdicts/")


@dataclass(frozen=True)
class Inputs:
    """Everything that a run reads from its catalog."""

    files: CatalogFiles
    level: int
    """Number of domains: the granularity of weights, limits and budgets."""
    corpus: Pool
    """Train split of the corpus."""
    fill: Fill
    """Fill of its sequences, which turns weights into draws."""
    align: Pool
    """Align split of the run's target."""
    objective: Objective
    """Objective on the run's target, which is evaluated."""
    choices: Objective | None
    """Choice of right answers, which is evaluated too."""
    aims: Mapping[str, Objective]
    """Objectives on the targets that the mixture is learned for, by name."""
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
            draws=training.draws,
        )

    def drawn(
        self, weights: Float[np.ndarray, " leaves"], config: Train
    ) -> Float[np.ndarray, " leaves"]:
        """Return the shares that leaves of these weights are drawn with, before any bounds."""
        draws, discount = self.fill.draws(weights), config.mixture.discount
        if not discount:
            return draws
        return discounted(draws, self.corpus.sequences, config.training.draws, discount)

    def mixer(self, config: Train) -> tuple[Mixer, MixerState]:
        """Return the mixer and its state before the first interval; for errors see `make_mixer`."""
        names, mixture = self.basis.names, config.mixture
        prior = self.prior(config, mixture.target_shares(config.target))
        rates = partial(learning_rate_at, config)
        mixer = make_mixer(config, names, rates, self._member_sizes(mixture), prior)
        return mixer, first_state(mixer, names, mixture.start)

    def prior(
        self, config: Train, targets: Mapping[str, float]
    ) -> Float[np.ndarray, " basis"] | None:
        """Return the prior over the basis: distributions, or single domains. None: even.

        Args:
            config: the config of the run.
            targets: shares of the targets, which sum to 1.
        """
        mixture = config.mixture
        if not mixture.has_target_prior:
            return None
        share = self.prior_share(config, targets)
        if mixture.basis == "distributions":
            return member_prior(self.basis.names, targets, share)
        leaves = self.mixed(config, wanted_shares(targets, share))
        domains: Float[np.ndarray, " domains"] = leaves.reshape(self.level, -1).sum(axis=1)
        return domains[[int(name) for name in self.basis.names]]

    def prior_share(self, config: Train, targets: Mapping[str, float]) -> float:
        """Return the share of the targets' own distributions in the prior.

        Args:
            config: the config of the run.
            targets: shares of the targets, which sum to 1.
        """
        given = config.mixture.target_share
        if isinstance(given, float):
            return given
        alone = self.fill.draws(self.mixed(config, wanted_shares(targets, 1.0)))
        return automatic_share(alone, self.corpus.sequences, config.training.draws)

    def leaves(self, config: Train, name: str) -> Float[np.ndarray, " leaves"]:
        """Return a stored distribution over the leaves, from the basis if it is there."""
        mixture = config.mixture
        if mixture.learns and mixture.basis == "distributions" and name in self.basis.names:
            row: Float[np.ndarray, " leaves"] = self.basis.matrix[self.basis.names.index(name)]
            return row
        kind = None if name in BUILT_IN_DISTRIBUTIONS else mixture.kind
        domains = read_distribution(self.files, name, kind, self.level)
        sizes = self.fill.sizes(self.corpus.sequences)
        return to_leaves(domains, self.files.levels, self.level, sizes, name)

    def mixed(self, config: Train, shares: Mapping[str, float]) -> Float[np.ndarray, " leaves"]:
        """Return a mixture of stored distributions over the leaves."""
        return np.asarray(sum(share * self.leaves(config, name) for name, share in shares.items()))

    def _member_sizes(self, mixture: Mixture) -> Float[np.ndarray, " basis"] | None:
        """Return the number of tokens of each member, as shares of their sum.

        Only domains have sizes. Distributions overlap, so that the tokens of a leaf belong to
        several of them.
        """
        if mixture.basis == "distributions":
            return None
        sizes: Float[np.ndarray, " basis"] = (self.basis.matrix > 0) @ self.corpus.tokens()
        return sizes / sizes.sum()


def verify_inputs(config: Train, team: Team) -> None:
    """Compare the catalog's files with their checksums, except texts and tables about texts.

    One process per machine reads the files. A file that was found right before on this machine and
    has not changed since is not read again.

    Raises:
        DamagedFileError: A file is missing or damaged.
    """
    files = catalog_of(config)
    names = [name for name in files.manifest.files if not name.startswith(_NOT_TRAINED_ON)]
    damage: DamagedFileError | None = None
    if team.leads_machine:
        try:
            files.verified.compare(names)
        except DamagedFileError as error:
            damage = None if _repaired(config, files, names) else error
    found = team.gather(f"{damage.path}\0{damage.reason}" if damage else "")
    if first := next(filter(None, found), ""):
        path, _, reason = first.partition("\0")
        raise DamagedFileError(Path(path), reason)


def catalog_of(config: Train) -> CatalogFiles:
    """Open the catalog of a run, in a folder or on a store.

    Raises:
        UserError: There is no such catalog or version, or its store cannot be reached.
    """
    data, length = config.data, config.training.sequence_tokens
    return open_catalog(config.catalog, data.version, length, data.cache_bytes)


def _repaired(config: Train, files: CatalogFiles, names: Sequence[str]) -> bool:
    """Return whether damaged copies of files on a store were fetched again."""
    if isinstance(config.catalog, Path):
        return False
    repair_mirror(config.catalog, config.data.version)
    files.verified.compare(names)
    return True


def refill_catalog(config: Train, files: CatalogFiles) -> None:
    """Copy the small files of a catalog on a store again if this machine's cache was emptied.

    Raises:
        UserError: The store cannot be reached.
    """
    if not isinstance(config.catalog, Path) and not files.layout.manifest.exists():
        local_folder(config.catalog, files.version)


def open_inputs(config: Train) -> Inputs:
    """Open the inputs of a run and check that they fit each other. Nothing is written.

    Raises:
        UserError: The catalog, the target, a distribution or a model is missing or does not fit,
            or `config.out` holds something else than a run.
    """
    _check_folder(config.out)
    files = catalog_of(config)
    check_models(config, files)
    level = config.mixture.level or files.levels.leaves
    files.levels.span(level)  # raises UserError if the tree has no such level
    align = _align_split(files, config, config.target)
    corpus = _corpus(files, config, level)
    objective = open_objective(files, config, align)
    fill = Fill.of(corpus.store, corpus.length, config.data.draw_by)
    basis = build_basis(
        files, config.mixture, config.target, corpus.sequences, fill, config.training.draws
    )
    validation_sets, final_sets = held_out_sets(files, config, basis.names)
    return Inputs(
        files=files,
        level=level,
        corpus=corpus,
        fill=fill,
        align=align,
        objective=objective,
        choices=(
            open_objective(files, config, align, kind="choices")
            if config.evaluation.choices and config.mixture.objective != "choices"
            else None
        ),
        aims={
            name: objective if name == config.target else _aim(files, config, name, corpus)
            for name in config.mixture.target_shares(config.target)
        },
        validation_sets=validation_sets,
        final_sets=final_sets,
        basis=basis,
        byte_lengths=byte_lengths(open_tokenizer(files)),
    )


def _align_split(files: CatalogFiles, config: Train, target: str) -> Pool:
    """Open the align split of a target that was embedded by the catalog's encoder."""
    store = open_target(files, target, "align", begun=config.training.separate_documents)
    _check_encoder(files, target)
    return Pool(store, files.sequence_tokens, f"target {target}: its align split")


def _aim(files: CatalogFiles, config: Train, name: str, corpus: Pool) -> Objective:
    """Return the objective on a further target, or on new sequences of the corpus itself."""
    if name == GENERAL:
        return TextLoss(corpus, config.mixture.target_sequences, config.seed, GENERAL)
    return open_objective(files, config, _align_split(files, config, name), name)


def _corpus(files: CatalogFiles, config: Train, level: int) -> Pool:
    """Open the train split, thinned as `data.as_if_tokens` and `data.tokens_per_domain` say."""
    length, data = files.sequence_tokens, config.data
    store = open_tokens(files, "train")
    available = None
    if data.as_if_tokens:
        tokens = config.training.draws * length
        if data.as_if_tokens < tokens:
            raise UserError(
                f"data.as_if_tokens: {data.as_if_tokens:,}. Expected at least the {tokens:,} "
                "tokens of the run itself. Increase it."
            )
        available = thinned_sequences(
            store.sequences(length), tokens / data.as_if_tokens, config.seed
        )
    if data.tokens_per_domain:
        stored = store.sequences(length) if available is None else available
        available = available_sequences(stored, level, data.tokens_per_domain, length, config.seed)
    return Pool(store, length, f"{files.root}: its train split", available, config.seed)


def _check_folder(out: Folder) -> None:
    """Check that a run may be written here: the folder is new, empty but for logs, or a run's.

    A run would replace files of others, such as a model's.
    """
    if isinstance(out, Place):
        others = [name for name in out.names() if not is_lease(name)]
    else:
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
