"""Experiments: runs on one catalog that differ in settings or seeds, and their comparison."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from data_catalog.errors import UserError
from data_catalog.settings import overridden, parse
from flows.artifacts import artifact_key, show_runs
from flows.build import build as build_catalog
from flows.events import tag_flow_run
from flows.pages.run import write_report
from flows.served import served_flow
from flows.train import ProcessCount
from flows.train import train as train_one
from flows.training_check import check_training
from pipeline.config import Build
from trainer.config import Train

VariantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Seed = Annotated[int, Field(ge=0)]


@served_flow(name="experiment", flow_run_name="experiment {config.out}")
def experiment(
    config: Train,
    variants: dict[VariantName, tuple[str, ...]],
    seeds: tuple[Seed, ...] = (),
    catalog: Build | None = None,
    processes: ProcessCount = 1,
) -> str:
    """Train one run per variant and seed, and compare them on OUT/report.html. Return OUT.

    OUT is config.out. The runs are in OUT/runs/VARIANT, or in OUT/runs/VARIANT-SEED if seeds are
    given. Finished runs are kept: repeated with more variants or seeds, the flow trains only the
    new runs and compares all of them.

    Args:
        config: Settings that all runs share. Relative paths start at the folder that the flow runs
            in.
        variants: Settings to override per variant, by name of the variant. Example:
            {"natural": ["mixture.mixer=natural"]}.
        seeds: Seeds for each variant. Default: the seed of the config.
        catalog: Catalog to build before training, unless it is already built.
        processes: Number of training processes per run, e.g. one per GPU.

    Raises:
        UserError: There are no variants, or a variant has invalid settings. Raised before training.
    """
    if not variants:
        raise UserError(
            "variants: found none. Expected at least one, "
            'for example {"natural": ["mixture.mixer=natural"]}.'
        )
    tag_flow_run("clustermix", "experiment", config.out.name)
    if catalog is not None:
        config = config.model_copy(update={"catalog": catalog.out})
    planned = variant_configs(config, variants, seeds)
    if catalog is not None:
        build_catalog(catalog)
    for run in planned:
        check_training(run)
    runs = [Path(train_one(run, processes)) for run in planned]
    page = write_report(runs, config.out / "report.html", config.catalog)
    show_runs(artifact_key("experiment", config.out.name), runs, page)
    return str(config.out)


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
