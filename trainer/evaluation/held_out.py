"""Which held-out sequences a run is measured on."""

import logging
from collections.abc import Sequence

from data_catalog.errors import UserError
from data_catalog.format.files import CatalogFiles
from data_catalog.format.tokens import open_target, open_tokens
from trainer.config import Train
from trainer.evaluation.evaluate import EvaluationSet, domain_sets, evaluation_set
from trainer.sampling.batches import Pool

DOMAINS_SEQUENCES = 16  # as many times as in another set, in those of all domains together

logger = logging.getLogger(__name__)


def held_out_sets(
    files: CatalogFiles, config: Train, basis: Sequence[str]
) -> tuple[tuple[EvaluationSet, ...], tuple[EvaluationSet, ...]]:
    """The sets that are measured while the run goes on, and those that are measured at its end.

    Args:
        basis: the names of the basis members; those that are targets are sets too.

    Raises:
        UserError: a split of the run's target, or the test split of one of `evaluation.targets`, is missing or empty.
    """
    evaluation, length, seed = config.evaluation, files.sequence_tokens, config.seed

    def of_target(name: str, split: str, shown: str) -> EvaluationSet:
        store = open_target(files, name, split)
        pool = Pool(store, length, f"target {name}: its {split} split")
        return evaluation_set(shown, pool, evaluation.sequences, seed)

    during = [of_target(config.target, "validation", "target/validation")]
    at_the_end = [of_target(config.target, "test", "target/test")]
    at_the_end += [of_target(name, "test", f"{name}/test") for name in evaluation.targets]
    for name in basis if evaluation.basis and config.mixture.basis == "distributions" else ():
        if name not in files.manifest.targets or name in (config.target, *evaluation.targets):
            continue
        try:
            at_the_end.append(of_target(name, "test", f"{name}/test"))
        except UserError as error:  # the run does not need it
            logger.warning("%s: its loss is not measured", error)

    held_out = open_tokens(files, "heldout")
    if held_out.sequences(length).sum():
        corpus = Pool(held_out, length, "heldout")
        during.append(evaluation_set("general", corpus, evaluation.sequences, seed))
        if evaluation.domains:
            at_the_end += domain_sets(
                corpus, files.levels, DOMAINS_SEQUENCES * evaluation.sequences, seed
            )
    else:
        logger.warning(
            "%s has no held-out documents: the general loss is not measured", config.catalog
        )
    return tuple(during), (*during, *at_the_end)
