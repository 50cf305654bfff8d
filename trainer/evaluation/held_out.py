"""Selection of the held-out sequences of a run."""

import logging
from collections.abc import Sequence

from data_catalog.errors import UserError
from data_catalog.format.files import CatalogFiles
from data_catalog.format.tokens import open_target, open_tokens
from trainer.config import Train
from trainer.evaluation.evaluate import EvaluationSet, domain_sets, evaluation_set
from trainer.mixture_config import GENERAL
from trainer.sampling.batches import Pool

DOMAINS_SEQUENCES = 16  # number of sequences of all domain sets, as a multiple of another set's

logger = logging.getLogger(__name__)


def held_out_sets(
    files: CatalogFiles, config: Train, basis: Sequence[str]
) -> tuple[tuple[EvaluationSet, ...], tuple[EvaluationSet, ...]]:
    """Return the sets that are evaluated during the run, and those at its end.

    Args:
        files: the open catalog.
        config: the config of the run.
        basis: names of the basis members. Those that are targets are evaluated too.

    Raises:
        UserError: A split of the run's target, or the test split of one of `evaluation.targets` or
            `mixture.targets`, is missing or empty.
    """
    evaluation, length, seed = config.evaluation, files.sequence_tokens, config.seed

    def of_target(name: str, split: str, shown: str) -> EvaluationSet:
        store = open_target(files, name, split, begun=config.training.separate_documents)
        pool = Pool(store, length, f"target {name}: its {split} split")
        return evaluation_set(shown, pool, evaluation.sequences, seed)

    validation_sets = [of_target(config.target, "validation", "target/validation")]
    final_sets = [of_target(config.target, "test", "target/test")]
    others = [name for name in config.mixture.targets if name not in (config.target, GENERAL)]
    named = dict.fromkeys([*evaluation.targets, *others])
    final_sets += [of_target(name, "test", f"{name}/test") for name in named]
    for name in basis if evaluation.basis and config.mixture.basis == "distributions" else ():
        if name not in files.manifest.targets or name in (config.target, *named):
            continue
        try:
            final_sets.append(of_target(name, "test", f"{name}/test"))
        except UserError as error:  # The run does not need this set.
            logger.warning("%s Its loss is not measured.", error)

    held_out = open_tokens(files, "heldout")
    if held_out.sequences(length).sum():
        corpus = Pool(held_out, length, "heldout")
        validation_sets.append(evaluation_set("general", corpus, evaluation.sequences, seed))
        if evaluation.domains:
            final_sets += domain_sets(
                corpus, files.levels, DOMAINS_SEQUENCES * evaluation.sequences, seed
            )
    else:
        logger.warning(
            "%s: There are no held-out documents. The general loss is not measured.", config.catalog
        )
    return tuple(validation_sets), (*validation_sets, *final_sets)
