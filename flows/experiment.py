"""An experiment: one catalog, several trainings on it that differ in a few settings and in their seed, and one page that compares them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from data_catalog.errors import UserError
from data_catalog.settings import overridden, parse
from flows.artifacts import artifact_key, show_runs
from flows.build import build as build_catalog
from flows.events import tag_flow_run
from flows.pages.run import write_report
from flows.train import ProcessCount, check_training
from flows.train import train as train_one
from pipeline.config import Build
from trainer.config import Train

VariantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Seed = Annotated[int, Field(ge=0)]


@flow(name="experiment", flow_run_name="experiment {config.out}")
def experiment(
    config: Train,
    variants: dict[VariantName, tuple[str, ...]],
    seeds: tuple[Seed, ...] = (),
    catalog: Build | None = None,
    processes: ProcessCount = 1,
) -> str:
    """Train once for each variant and seed, compare the runs on OUT/report.html, and return the folder OUT = config.out.

    A run lies in OUT/runs/VARIANT, or in OUT/runs/VARIANT-SEED if seeds are given. Runs that are finished are kept: called again with more
    variants or seeds, it trains the new ones and compares all.

    Args:
        config: What all runs share. Paths are taken from the folder that the flow runs in.
        variants: The settings that a variant changes, by its name, such as {"natural": ["mixture.mixer=natural"]}.
        seeds: Each variant is trained with each of them; with that of the config if there are none.
        catalog: A catalog to build first, or to find built; the trainings are then on it.
        processes: Of each training: one process a GPU, or CPU processes.

    Raises:
        UserError: there is no variant, or a variant's settings do not fit; said before anything is trained.
    """
    if not variants:
        raise UserError(
            'variants: found none, expected at least one, such as {"natural": ["mixture.mixer=natural"]}'
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
    """The configs of the runs, a variant's seeds one after the other.

    Raises:
        UserError: a variant's settings do not fit the config.
    """
    found = []
    for name, overrides in variants.items():
        for seed in seeds or (None,):
            out = config.out / "runs" / (name if seed is None else f"{name}-{seed}")
            own = [
                f"out={json.dumps(str(out), ensure_ascii=False)}",
                *([] if seed is None else [f"seed={seed}"]),
            ]
            tree = overridden(config.model_dump(mode="json"), [*overrides, *own])
            found.append(parse(Train, tree, f"variant {name}"))
    return found
