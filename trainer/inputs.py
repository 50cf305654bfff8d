"""What a run reads: the catalog's sequences, the target's, and the basis."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from data_catalog.errors import UserError
from data_catalog.format.distributions import Basis
from data_catalog.format.encoder_identity import Identity
from data_catalog.format.layout import Layout, Levels
from data_catalog.format.manifest import read_manifest
from data_catalog.format.tokens import open_target, open_tokens
from trainer.config import Train
from trainer.evaluation.evaluate import EvaluationSet
from trainer.evaluation.held_out import held_out_sets
from trainer.evaluation.objectives import Objective, open_objective
from trainer.evaluation.tokenizer import byte_lengths, open_tokenizer
from trainer.sampling.basis import build_basis
from trainer.sampling.batches import Pool
from trainer.sampling.bounds import Bounds, available_sequences, build_bounds


@dataclass(frozen=True)
class Inputs:
    catalog: str  # its fingerprint
    tokenizer: str  # sha256
    level: int  # how many domains: the granularity that weights, limits and budgets are about
    levels: Levels
    vocabulary: int
    end_of_text: int
    corpus: Pool  # train split
    align: Pool  # the target's documents that gradients are taken on
    objective: Objective
    during: tuple[EvaluationSet, ...]
    at_the_end: tuple[EvaluationSet, ...]
    basis: Basis
    byte_lengths: Int[np.ndarray, " vocabulary"]  # of each token's text

    def bounds(self, config: Train) -> Bounds | None:
        """What the run may draw at most; see `build_bounds` for the errors."""
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
        """The tokens that each basis member can draw, as shares of their sum."""
        sizes: Float[np.ndarray, " basis"] = (self.basis.matrix > 0) @ self.corpus.tokens()
        return sizes / sizes.sum()


def open_inputs(config: Train) -> Inputs:
    """Open the catalog of a run.

    Raises:
        UserError: the catalog, the target or a distribution is missing or does not fit.
    """
    root, version = config.catalog, config.data.version
    manifest = read_manifest(root, version)
    levels = Levels(tuple(manifest["granularities"]))
    level = config.mixture.level or levels.leaves
    levels.span(level)  # refuses a level that the tree lacks
    pad = manifest["tokenizer"]["end_of_text"]
    name = f"target {config.target}: its align split"
    align = Pool(
        open_target(root, config.target, "align", pad), config.training.sequence_tokens, name
    )
    _same_encoder(root, config.target, manifest["encoder"])
    corpus = _corpus(config, levels, level, pad)
    basis = build_basis(root, levels, config.mixture, config.target, corpus.sequences, version)
    during, at_the_end = held_out_sets(config, levels, pad, manifest["targets"], basis.names)
    return Inputs(
        catalog=manifest["fingerprint"],
        tokenizer=manifest["tokenizer"]["sha256"],
        level=level,
        levels=levels,
        vocabulary=manifest["tokenizer"]["vocabulary"],
        end_of_text=pad,
        corpus=corpus,
        align=align,
        objective=open_objective(config, align, pad),
        during=during,
        at_the_end=at_the_end,
        basis=basis,
        byte_lengths=byte_lengths(open_tokenizer(root)),
    )


def _corpus(config: Train, levels: Levels, level: int, pad: int) -> Pool:
    """The train split, each domain cut to `data.tokens_per_domain`."""
    root, length, most = (
        config.catalog,
        config.training.sequence_tokens,
        config.data.tokens_per_domain,
    )
    store = open_tokens(root, levels, "train", pad, config.data.version)
    available = (
        available_sequences(store.sequences(length), level, most, length, config.seed)
        if most
        else None
    )
    return Pool(store, length, f"{root}: its train split", available, config.seed)


def _same_encoder(root: Path, name: str, expected: object) -> None:
    path = Layout(root).target(name) / "target.json"
    try:
        found = Identity.model_validate(json.loads(path.read_text(encoding="utf-8"))["encoder"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: cannot be read ({error}); build the catalog again") from error
    theirs = Identity.model_validate(expected)
    if found.comparable != theirs.comparable:
        raise UserError(
            f"target {name} shares no encoder with the catalog: its documents were embedded with {found.comparable}, "
            f"the corpus with {theirs.comparable}; "
            "their clusters do not correspond. Build the target again with the catalog's encoder"
        )
