"""Experiments: runs on one catalog that differ in settings or seeds, and their comparison."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from data_catalog.errors import UserError
from flows.artifacts import artifact_key, show_runs
from flows.build import build as build_catalog
from flows.events import tag_flow_run
from flows.pages.run import write_report
from flows.served import served_flow
from flows.train import ProcessCount
from flows.train import train as train_one
from flows.training_check import check_training
from flows.variants import VARIANT_NAME, variant_configs
from pipeline.config import Build
from trainer.config import Train

VariantName = Annotated[str, Field(pattern=VARIANT_NAME)]
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
