"""What a run reads: the catalog's sequences, the target's, and the basis."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from data_catalog.errors import UserError
from data_catalog.identity import Identity
from data_catalog.layout import Layout, Levels
from data_catalog.manifest import read_manifest
from data_catalog.mixture import Basis
from data_catalog.tokens import open_target, open_tokens
from trainer.basis import build_basis
from trainer.config import Train
from trainer.data import Pool
from trainer.evaluate import EvaluationSet, evaluation_set

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    catalog: str  # its fingerprint
    vocabulary: int
    end_of_text: int
    corpus: Pool  # train split
    align: Pool  # the target's documents that gradients are taken on
    during: tuple[EvaluationSet, ...]
    at_the_end: tuple[EvaluationSet, ...]
    basis: Basis


def open_inputs(config: Train) -> Inputs:
    """Open the catalog of a run.

    Raises:
        UserError: the catalog, the target or a distribution is missing or does not fit.
    """
    root = config.catalog
    manifest = read_manifest(root)
    levels = Levels(tuple(manifest["granularities"]))
    pad = manifest["tokenizer"]["end_of_text"]
    length, most, name = config.training.sequence_tokens, config.evaluation.sequences, config.target

    def target(name: str, split: str) -> Pool:
        return Pool(open_target(root, name, split, pad), length, f"target {name}: its {split} split")

    align, validation, test = (target(name, split) for split in ("align", "validation", "test"))
    _same_encoder(root, name, manifest["encoder"])
    corpus = Pool(open_tokens(root, levels, "train", pad), length, f"{root}: its train split")
    during = [evaluation_set("target/validation", validation, most, config.seed)]
    held_out = open_tokens(root, levels, "heldout", pad)
    if held_out.sequences(length).sum():
        during.append(evaluation_set("general", Pool(held_out, length, "heldout"), most, config.seed))
    else:
        logger.warning("%s has no held-out documents: the general loss is not measured", root)
    others = [evaluation_set(f"{other}/test", target(other, "test"), most, config.seed) for other in config.evaluation.targets]
    return Inputs(
        catalog=manifest["fingerprint"],
        vocabulary=manifest["tokenizer"]["vocabulary"],
        end_of_text=pad,
        corpus=corpus,
        align=align,
        during=tuple(during),
        at_the_end=(*during, evaluation_set("target/test", test, most, config.seed), *others),
        basis=build_basis(root, levels, config.mixture, name, corpus.sequences),
    )


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
