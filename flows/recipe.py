"""Recipes of experiments: variants of a training, each with every target, repetition and seed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from data_catalog.errors import UserError
from data_catalog.format.distributions import read_distribution, to_leaves
from data_catalog.format.tokens import open_tokens
from data_catalog.settings import LocalPath, Settings, overridden, parse, read_toml
from data_catalog.transfer.mirror import open_catalog
from trainer.config import Train
from trainer.mixers.guardrail import parse_limit
from trainer.mixers.prior import mean_epochs
from trainer.sampling.fill import Fill

VARIANT_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
VariantName = Annotated[str, Field(pattern=VARIANT_NAME)]


class Recipe(Settings):
    """An experiment. Every variant is trained with every target, repetition and seed."""

    out: LocalPath
    """Folder of the experiment."""
    title: str = ""
    """Title of its page. If empty, it names the folder."""
    run: dict[str, Any]
    """Settings that all runs share: a training config without `out`."""
    variants: dict[VariantName, dict[str, Any]] = Field(min_length=1)
    """Settings that replace those of `run`, by name of the variant. With `follows`, the name of
    another variant, a run replays the weights of that variant's run. The run that
    `mixture.general_loss_at_most` names can be a variant too."""
    targets: tuple[str, ...] = ()
    """Targets of the catalog. If empty, that of `run`."""
    epochs: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Repetitions: how often a run that draws only from the target's own distribution draws its
    domains. The data is thinned accordingly. If it is too little, the run draws from all data.
    If empty, the data is that of `run`."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Seeds. They also select the data that is left of a thinned catalog. If empty, that of
    `run`."""
    equal_compute: bool = False
    """Variants that measure for their mixer take fewer steps, so that all do the same work."""
    jobs: Annotated[int, Field(ge=1)] = 1
    """Number of runs at the same time, each with its share of the processor's cores."""
    baseline: str | None = None
    """Variant that the others are compared with. If not given, the first one."""
    predicted: dict[VariantName, float] = Field(default_factory=dict)
    """Expected mean difference of a variant from the baseline on the target, in bits per byte,
    written down before the runs. It is shown beside the measured one."""

    @model_validator(mode="after")
    def _variants_exist(self) -> "Recipe":
        named: dict[str, str | None] = {"baseline": self.baseline}
        named |= {f"predicted.{name}": name for name in self.predicted}
        named |= {
            f"variants.{name}.follows": settings.get("follows")
            for name, settings in self.variants.items()
        }
        for key, name in named.items():
            own = key.split(".")[1] if key.endswith(".follows") else None
            if name is not None and (name not in self.variants or name == own):
                others = ", ".join(sorted(self.variants.keys() - {own}))
                raise ValueError(f"{key}: {name!r} is not a variant. Expected one of: {others}")
        return self

    @property
    def compared_with(self) -> str:
        """The variant that the others are compared with."""
        return self.baseline or next(iter(self.variants))


@dataclass(frozen=True)
class PlannedRun:
    """A run of an experiment."""

    variant: str
    epochs: float | None
    """Repetition that was asked for. None: the data of the recipe's `run`."""
    config: Train
    follows: Path | None
    """Folder of the run whose weights are replayed."""
    reference: Path | None = None
    """Folder of the run whose loss on general text is the limit."""

    def with_steps(self, steps: float) -> "PlannedRun":
        """Return the run with another number of steps, on the same thinned data."""
        training, data = self.config.training, self.config.data
        changed = training.model_copy(update={"steps": max(round(steps), 1)})
        if data.as_if_tokens:
            tokens = round(data.as_if_tokens * changed.steps / training.steps)
            data = data.model_copy(update={"as_if_tokens": tokens})
        update = {"training": changed, "data": data}
        return replace(self, config=self.config.model_copy(update=update))


def parse_variants(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the settings of each variant.

    Args:
        words: `NAME=KEY=VALUE`, or the name of a mixer for a variant of this name. A name that
            occurs several times has several settings.

    Raises:
        UserError: A name or a setting is invalid.
    """
    variants: dict[str, dict[str, Any]] = {}
    for word in words:
        name, _, setting = word.partition("=")
        if not re.fullmatch(VARIANT_NAME, name):
            raise UserError(
                f"variant {name!r}: not a valid name. Expected letters, digits, dots, hyphens and "
                "underscores, with a letter or digit first. Write, for example, "
                "low=optimizer.learning_rate=0.001."
            )
        variants[name] = overridden(variants.get(name, {}), [setting or f"mixture.mixer={name}"])
    return variants


def planned_runs(recipe: Recipe) -> list[PlannedRun]:
    """Return the runs of an experiment.

    Seeds are the outer loop, so that an early stop leaves complete comparisons. A folder is named
    after the variant, and after each axis that the recipe has.

    Raises:
        UserError: A variant has invalid settings, or the catalog lacks a target.
    """
    runs = []
    alone: dict[tuple[str, int], float] = {}  # epochs with all data, by target and draws
    for seed, target, epochs, (variant, settings) in product(
        recipe.seeds or (None,), recipe.targets or (None,), recipe.epochs or (None,),
        recipe.variants.items(),
    ):  # fmt: skip
        changes: dict[str, Any] = {}
        if seed is not None:
            changes["seed"] = seed
        if target is not None:
            changes["target"] = target
        shared = merged(recipe.run, changes)
        axes = [
            *([] if target is None else [target]),
            *([] if epochs is None else [f"{epochs:g}x"]),
            *([] if seed is None else [str(seed)]),
        ]
        tree = merged(shared, {key: value for key, value in settings.items() if key != "follows"})
        tree["out"] = str(recipe.out / "runs" / "-".join([variant, *axes]))
        followed = settings.get("follows")

        def folder(other: str, axes: Sequence[str] = axes) -> Path:
            return recipe.out / "runs" / "-".join([other, *axes])

        source = folder(followed) if followed else None
        if source:
            tree = merged(tree, {"mixture": {"mixer": "replay", "file": str(source)}})
        config, reference = parse(Train, tree, f"variant {variant}"), None
        if limit := config.mixture.general_loss_at_most:
            named, margin = parse_limit(limit)
            if str(named) in recipe.variants:
                reference = folder(str(named))
                changed = {"general_loss_at_most": f"{reference} + {margin}"}
                mixture = config.mixture.model_copy(update=changed)
                config = config.model_copy(update={"mixture": mixture})
        if epochs is not None:
            config = _repeating(config, epochs, alone)
        runs.append(PlannedRun(variant, epochs, config, source, reference))
    return runs


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with others in place of theirs."""
    result = dict(base)
    for key, value in changes.items():
        inner: Any = result.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        result[key] = merged(inner, value) if both else value
    return result


def open_recipe(
    path: Path,
    variants: Sequence[str] = (),
    axes: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> Recipe:
    """Return the recipe in a TOML file, or one made from a training config.

    Args:
        path: TOML file.
        variants: variants of a training config, as in `parse_variants`.
        axes: values that replace `targets`, `seeds` and `jobs`.
        overrides: changed settings. Those of a training config belong to `run`.

    Raises:
        UserError: The file cannot be read, has no variants, or has variants of its own and
            `variants` are given. A key is unknown or missing, or a value is invalid.
    """
    tree = overridden(read_toml(path), overrides)
    if "variants" in tree:
        if variants:
            raise UserError(f"--variant: {path} is a recipe with variants. Add the variant there.")
    else:
        if not variants:
            raise UserError(
                "--variant: found none. Expected at least one, for example --variant natural."
            )
        config = parse(Train, tree, str(path))
        shared = config.model_dump(mode="json", exclude={"out"}, exclude_unset=True)
        tree = {"out": str(config.out), "run": shared, "variants": parse_variants(variants)}
    return parse(Recipe, {**tree, **(axes or {})}, str(path))


def epochs_alone(config: Train) -> float:
    """Return the epochs of the target's domains in a run on the target's distribution alone.

    The data is that of the catalog, thinned as `data.as_if_tokens` says, without other limits.

    Raises:
        UserError: The catalog, its level or the target's distribution is missing.
    """
    training, length = config.training, config.training.sequence_tokens
    data = config.data
    files = open_catalog(config.catalog, data.version, length, data.cache_bytes)
    level = config.mixture.level or files.levels.leaves
    store = open_tokens(files, "train")
    sequences, fill = store.sequences(length), Fill.of(store, length, config.data.draw_by)
    stored = read_distribution(files, config.target, "hard", level)
    sizes = fill.sizes(sequences)
    leaves = to_leaves(stored, files.levels, level, sizes, f"target {config.target}")
    draws = training.draws
    thinned = (config.data.as_if_tokens or draws * length) / (draws * length)
    return mean_epochs(leaves, fill.draws(leaves), sequences, draws) * thinned


def _repeating(config: Train, epochs: float, alone: dict[tuple[str, int], float]) -> Train:
    """Return the config with data so thin that its target's domains have a number of epochs.

    If they have more with all of the data, which depends on the catalog, the config stays as it is.

    Args:
        config: a config.
        epochs: epochs of the target's domains in a run on the target's distribution alone.
        alone: those with all data, by target and tokens of a run. It is filled here.
    """
    training = config.training
    tokens = training.draws * training.sequence_tokens
    key = config.target, tokens
    if key not in alone:
        alone[key] = epochs_alone(config)
    if epochs < alone[key]:
        return config
    data = config.data.model_copy(update={"as_if_tokens": round(tokens * epochs / alone[key])})
    return config.model_copy(update={"data": data})
