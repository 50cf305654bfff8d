"""Opening of a mixture for a loop that is not ours, and what such a loop cannot ask for."""

from typing import Any

from data_catalog.errors import UserError
from data_catalog.place import Place
from data_catalog.settings import parse
from trainer.alignment.overhead import cadence_of
from trainer.begin import check_mixture
from trainer.config import Train
from trainer.inputs import open_inputs
from trainer.library.mixture import LoopMixture
from trainer.state.trackers import check_trackers

_OWN_LOOP = "belongs to the trainer of clustermix, but the loop is your own. Remove it."


def open_mixture(**settings: Any) -> LoopMixture:
    """Open the mixture of a run of your own training loop. Nothing is written yet.

    Args:
        settings: the keys of a training's config, see docs/reference/config.md: `catalog`,
            `target`, `out`, `seed`, and the tables `mixture`, `data`, `training`, `evaluation` and
            `optimizer`, of which mixers may read the learning rate. Two defaults differ: nothing is
            evaluated before the end, and the documents of a sequence see each other.

    Raises:
        UserError: A key is invalid, or the catalog, the target and the folder do not fit.
    """
    for table in ("model", "finetune", "checkpoint"):
        if table in settings:
            raise UserError(f"open_mixture: {table} {_OWN_LOOP}")
    training = dict(settings.get("training", {}))
    for key in ("compile", "checkpoint_activations", "parallel"):
        if key in training:
            raise UserError(f"open_mixture: training.{key} {_OWN_LOOP}")
    training.setdefault("separate_documents", False)
    evaluation = {"every_steps": 0, **settings.get("evaluation", {})}
    tables = {"training": training, "evaluation": evaluation}
    config = parse(Train, {**settings, **tables}, "open_mixture")
    if isinstance(config.out, Place):
        raise UserError(f"out {config.out}: found a URL. Give a folder of this machine.")
    if config.mixture.preconditioned:
        raise UserError("mixture.preconditioned: it needs the optimizer of clustermix. Remove it.")
    check_trackers(config)
    inputs = open_inputs(config)
    if (config.folder / "weights.json").exists():
        raise UserError(f"out {config.out}: The run in this folder is finished. Change out.")
    cadence = cadence_of(config, len(inputs.basis.names), separate=True)
    if cadence.update_every_steps < 2 and config.mixture.learns:
        raise UserError(
            "mixture.update_every_steps: found 1. Expected at least 2, because the mixture is "
            "measured one step before it changes. Raise it."
        )
    check_mixture(config, inputs, cadence)
    return LoopMixture(config, inputs, cadence)
