"""Variants of an experiment: named settings over a config that all of its runs share."""

import json
import re
from collections.abc import Mapping, Sequence

from data_catalog.errors import UserError
from data_catalog.settings import overridden, parse
from trainer.config import Train

VARIANT_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


def parse_variants(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the settings of each variant.

    Args:
        words: `NAME=KEY=VALUE`, or the name of a mixer for a variant of this name. A name that
            occurs several times has several settings.

    Raises:
        UserError: A name is invalid.
    """
    variants: dict[str, tuple[str, ...]] = {}
    for word in words:
        name, _, setting = word.partition("=")
        if not re.fullmatch(VARIANT_NAME, name):
            raise UserError(
                f"variant {name!r}: not a valid name. Expected letters, digits, dots, hyphens and "
                "underscores, with a letter or digit first. Write, for example, "
                "low=optimizer.learning_rate=0.001."
            )
        variants[name] = (*variants.get(name, ()), setting or f"mixture.mixer={name}")
    return variants


def variant_configs(
    config: Train, variants: Mapping[str, tuple[str, ...]], seeds: tuple[int, ...] = ()
) -> list[Train]:
    """Return the configs of the runs, ordered by variant and then by seed.

    Args:
        config: Settings that all runs share.
        variants: Settings to override per variant.
        seeds: Seeds for each variant. Default: the seed of the config.

    Raises:
        UserError: A variant has invalid settings.
    """
    configs = []
    for name, overrides in variants.items():
        for seed in seeds or (None,):
            out = config.out / "runs" / (name if seed is None else f"{name}-{seed}")
            placement = [
                f"out={json.dumps(str(out), ensure_ascii=False)}",
                *([] if seed is None else [f"seed={seed}"]),
            ]
            tree = overridden(config.model_dump(mode="json"), [*overrides, *placement])
            configs.append(parse(Train, tree, f"variant {name}"))
    return configs
