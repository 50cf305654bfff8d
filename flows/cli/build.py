"""Commands that make catalogs: plan, build, add, verify, rebuild."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.cli.options import (
    BUILD,
    BuildSetOption,
    CatalogArgument,
    ConfigArgument,
    JsonOption,
    VersionOption,
    examples,
)
from flows.cli.output import print_json, stdout_for_json

build_commands = typer.Typer()
Runners = Literal["threads", "processes", "dask", "ray"]


@build_commands.command(
    "plan",
    rich_help_panel=BUILD,
    epilog=examples(
        "plan configs/rpv2.toml",
        "plan configs/sample.toml --set cluster.granularities='[64,4096]' --json",
    ),
)
def plan_command(
    config: ConfigArgument, overrides: BuildSetOption = None, as_json: JsonOption = False
) -> None:
    """Say what a build would read, how long it would take and what it would leave on the disk. Writes nothing."""
    from data_catalog.settings import load
    from flows.progress import progress_callback
    from pipeline.config import Build
    from pipeline.planning.estimate import estimate

    with progress_callback("plan", "steps") as said:
        found = estimate(load(Build, config, overrides or ()), said)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        from flows.cli.summary import print_estimate

        print_estimate(found)


@build_commands.command(
    "build",
    rich_help_panel=BUILD,
    epilog=examples(
        "build configs/sample.toml",
        "build configs/sample.toml --set cluster.granularities='[16,256]' --set out=catalogs/small",
        "build configs/rpv2.toml --runner processes --workers 8 --json",
    ),
)
def build_command(
    config: ConfigArgument,
    overrides: BuildSetOption = None,
    runner: Annotated[
        Runners, typer.Option(help="Where the parts run. The catalog is the same.")
    ] = "threads",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Parts at once; 4 threads, or a process a core, if not given."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build a catalog; work already done with this config is kept."""
    from data_catalog.settings import load
    from pipeline.config import Build
    from pipeline.run import check

    settings = load(Build, config, overrides or ())
    check(settings)  # a mistake is said before Prefect is started
    from flows.build import build as flow
    from flows.runners import task_runner

    with stdout_for_json(as_json):
        root = Path(flow.with_options(task_runner=task_runner(runner, workers))(settings))
    _say_built(root, as_json)


@build_commands.command(
    "add",
    rich_help_panel=BUILD,
    epilog=examples(
        "add catalogs/sample configs/add_jsonl.toml",
        "add catalogs/sample configs/add_jsonl.toml --set source.path=data/more",
    ),
)
def add_command(
    catalog: CatalogArgument,
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG",
            help="A TOML file with a source, targets, or both.",
            show_default=False,
        ),
    ],
    overrides: BuildSetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add documents or targets to a catalog, as a new version of it; the tree and what is there stay as they are."""
    from data_catalog.format.manifest import read_manifest
    from data_catalog.settings import load
    from pipeline.config import Addition

    addition = load(Addition, config, overrides or ())
    read_manifest(catalog)
    from flows.build import add as flow

    with stdout_for_json(as_json):
        root = Path(flow(catalog, addition))
    _say_built(root, as_json)


def _say_built(root: Path, as_json: bool) -> None:
    """What the newest version of a catalog is."""
    page = root / "report.html"
    if not as_json:
        from flows.cli.summary import print_build

        print_build(root)
        if page.is_file():
            print(f"The page: {page}")
        return
    from data_catalog.format.manifest import read_manifest

    manifest = read_manifest(root)
    about: dict[str, Any] = {"catalog": str(root), "page": str(page) if page.is_file() else None}
    print_json(about | {name: manifest[name] for name in ABOUT})


ABOUT = (
    "version",
    "fingerprint",
    "documents",
    "tokens",
    "granularities",
    "targets",
    "warnings",
)  # of a manifest


@build_commands.command(
    "verify",
    rich_help_panel=BUILD,
    epilog=examples("verify catalogs/sample", "verify catalogs/sample --version 1 --json"),
)
def verify_command(
    catalog: CatalogArgument, version: VersionOption = None, as_json: JsonOption = False
) -> None:
    """Check sizes, checksums, counts and sums of a catalog's files against its manifest. Exit code 1 if anything is wrong."""
    from data_catalog.format.verify import check
    from flows.progress import progress_callback

    with progress_callback("verify", "MB", 1e6) as said:
        report = check(catalog, version, said)
    if as_json:
        print_json({"catalog": str(catalog), "sound": not report.faults, **report.model_dump()})
    for fault in () if as_json else report.faults:
        print(fault)
    if report.faults:
        raise typer.Exit(1)
    if not as_json:
        print(
            f"{catalog}: version {report.version}, {report.files} files, {report.documents:,} documents, {report.tokens:,} tokens, "
            f"{report.distributions} distributions: sound"
        )


@build_commands.command(
    "rebuild", rich_help_panel=BUILD, epilog=examples("rebuild catalogs/sample")
)
def rebuild_command(catalog: CatalogArgument, as_json: JsonOption = False) -> None:
    """Make catalog.duckdb again from the catalog's files, for the DuckDB shell: after an update of clustermix, or if it was deleted."""
    from data_catalog.format.layout import Layout
    from data_catalog.query.database import rebuild as write

    made = write(catalog)
    if as_json:
        print_json({"catalog": str(catalog), "database": str(Layout(catalog).database), **made})
    else:
        print(
            f"{Layout(catalog).database}: version {made['version']}, {made['views']} views, {made['macros']} macros"
        )
