"""Commands that create and check catalogs: plan, build, add, verify, rebuild."""

from pathlib import Path
from typing import Annotated, Any

import typer

from data_catalog.folders import refuse_url
from data_catalog.place import Folder, parse_folder
from flows.cli import complete
from flows.cli.cluster import (
    ClusterOption,
    RunnerOption,
    WorkersOption,
    chosen_cluster,
    local_runner,
    with_runner,
)
from flows.cli.folders import holds_run
from flows.cli.options import (
    BUILD,
    BuildSetOption,
    CatalogArgument,
    ConfigArgument,
    JsonOption,
    LocalCatalogArgument,
    VersionOption,
    examples,
)
from flows.cli.output import print_json, stdout_for_json
from flows.cli.prefect import PrefectOption, prefect_server_if, uses_prefect
from flows.cli.scale import (
    DevicesOption,
    EncoderRateOption,
    MachinesOption,
    ScaleOption,
    print_scale,
)

build_commands = typer.Typer()
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose", help="Print the documents of each stage, and the health of the tree too."
    ),
]
MANIFEST_KEYS = (  # printed for --json
    "version",
    "fingerprint",
    "documents",
    "tokens",
    "granularities",
    "targets",
    "warnings",
)


@build_commands.command(
    "plan",
    rich_help_panel=BUILD,
    epilog=examples(
        "plan configs/rpv2.toml",
        "plan configs/sample.toml --set cluster.granularities='[64,4096]' --json",
        "plan configs/rpv2.toml --scale snapshot --machines 32 --devices 8 --encoder-rate 10000",
    ),
)
def plan_command(
    config: ConfigArgument,
    overrides: BuildSetOption = None,
    scale: ScaleOption = None,
    machines: MachinesOption = 1,
    devices: DevicesOption = None,
    encoder_rate: EncoderRateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate the input, time and disk space of a build. Nothing is written."""
    from data_catalog.settings import load
    from flows.progress import progress_callback
    from pipeline.config import Build
    from pipeline.planning.estimate import estimate_build

    with progress_callback("plan", "steps") as on_progress:
        settings = load(Build, config, overrides or ())
        result = estimate_build(settings, on_progress)
    if scale is not None:
        from pipeline.planning.scale import at_scale, corpus_of

        corpus = corpus_of(scale, result)
        print_scale(at_scale(settings, result, corpus, machines, devices, encoder_rate), as_json)
    elif as_json:
        print_json(result.model_dump(mode="json"))
    else:
        from flows.cli.summary import print_estimate

        print_estimate(result)


@build_commands.command(
    "build",
    rich_help_panel=BUILD,
    epilog=examples(
        "build configs/sample.toml",
        "build configs/sample.toml --set cluster.granularities='[16,256]' --set out=catalogs/small",
        "build configs/rpv2.toml --runner processes --workers 8 --json",
        "build configs/rpv2.toml --cluster ray://head:10001",
    ),
)
def build_command(
    config: ConfigArgument,
    overrides: BuildSetOption = None,
    runner: RunnerOption = "threads",
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    prefect: PrefectOption = False,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build a catalog. Work that is already done with the same config is reused."""
    from data_catalog.settings import load
    from pipeline.config import Build

    settings = load(Build, config, overrides or ())
    ray = chosen_cluster(runner, workers, cluster)
    in_prefect = uses_prefect(prefect)  # before imports that take seconds
    from pipeline.run import check_request

    check_request(settings)  # reports mistakes before Prefect starts
    with stdout_for_json(as_json), prefect_server_if(in_prefect):
        if in_prefect:
            from flows.build import build as flow

            root = parse_folder(with_runner(flow, runner, workers)(settings, ray))
        else:
            from flows.local.build import build

            root = build(settings, local_runner(runner), workers, ray)
    _print_newest_version(root, as_json, verbose)


@build_commands.command(
    "add",
    rich_help_panel=BUILD,
    epilog=examples(
        "add catalogs/sample configs/add_jsonl.toml",
        "add catalogs/sample configs/add_jsonl.toml --set source.path=data/more",
        "add s3://bucket/catalogs/sample configs/add_jsonl.toml --cluster ray://head:10001",
    ),
)
def add_command(
    catalog: CatalogArgument,
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG",
            help="Config file (TOML) with a source, targets, or both.",
            show_default=False,
        ),
    ],
    overrides: BuildSetOption = None,
    runner: RunnerOption = "threads",
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    prefect: PrefectOption = False,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add documents or targets to a catalog as a new version. Existing content is unchanged."""
    from data_catalog.settings import load
    from pipeline.config import Addition

    addition = load(Addition, config, overrides or ())
    ray = chosen_cluster(runner, workers, cluster)
    in_prefect = uses_prefect(prefect)  # before imports that take seconds
    from pipeline.add import check_addition

    check_addition(catalog, addition)  # reports mistakes before Prefect starts
    with stdout_for_json(as_json), prefect_server_if(in_prefect):
        if in_prefect:
            from flows.build import add as flow

            root = parse_folder(with_runner(flow, runner, workers)(catalog, addition, ray))
        else:
            from flows.local.build import add

            root = add(catalog, addition, local_runner(runner), workers, ray)
    _print_newest_version(root, as_json, verbose)


def _print_newest_version(root: Folder, as_json: bool, verbose: bool) -> None:
    page = root / "report.html"
    if not as_json:
        from flows.cli.summary import print_build

        print_build(root, verbose)
        if page.exists():
            print(f"Report: {page}")
        return
    from data_catalog.format.manifest import read_manifest

    manifest = read_manifest(root)
    paths: dict[str, Any] = {"catalog": str(root), "page": str(page) if page.exists() else None}
    print_json(paths | {name: manifest.content()[name] for name in MANIFEST_KEYS})


@build_commands.command(
    "verify",
    rich_help_panel=BUILD,
    epilog=examples("verify catalogs/sample", "verify catalogs/sample --version 1 --json"),
)
def verify_command(
    catalog: Annotated[
        Any,
        typer.Argument(
            metavar="CATALOG",
            help="Folder or URL of a built catalog, or folder of a run.",
            show_default=False,
            parser=parse_folder,
            autocompletion=complete.catalogs,
        ),
    ],
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the files of a catalog, or of a run. Exits with code 1 if a check fails.

    The check of a catalog covers sizes, checksums, counts and the sums of distributions. The check
    of a run covers the checksums of its checkpoints, and whether all other files can be read.
    """
    if holds_run(catalog):
        refuse_url(str(catalog), "run")
        _verify_run(catalog, as_json)
        return
    from data_catalog.verify import check
    from flows.progress import progress_callback

    with progress_callback("verify", "MB", 1e6) as on_progress:
        report = check(catalog, version, on_progress)
    if as_json:
        print_json({"catalog": str(catalog), "sound": not report.faults, **report.model_dump()})
    for fault in () if as_json else report.faults:
        print(fault)
    if report.faults:
        raise typer.Exit(1)
    if not as_json:
        print(
            f"{catalog}: no faults in version {report.version} ({report.files} files, "
            f"{report.documents:,} documents, {report.tokens:,} tokens, "
            f"{report.distributions} distributions)"
        )


def _verify_run(folder: Path, as_json: bool) -> None:
    from flows.run_check import find_run_faults

    faults = find_run_faults(folder)
    if as_json:
        print_json({"run": str(folder), "sound": not faults, "faults": faults})
    elif faults:
        print("\n".join(faults))
    else:
        print(f"{folder}: no faults")
    if faults:
        raise typer.Exit(1)


@build_commands.command(
    "rebuild", rich_help_panel=BUILD, epilog=examples("rebuild catalogs/sample")
)
def rebuild_command(catalog: LocalCatalogArgument, as_json: JsonOption = False) -> None:
    """Recreate catalog.duckdb, the database for the DuckDB shell, from the catalog's other files.

    Use it after an update of clustermix, or if the file was deleted.
    """
    from data_catalog.format.layout import Layout
    from data_catalog.query.shell_files import rebuild_database

    counts = rebuild_database(catalog)
    database = Layout(catalog).database
    if as_json:
        print_json({"catalog": str(catalog), "database": str(database), **counts})
    else:
        print(
            f"{database}: version {counts['version']}, {counts['views']} views, "
            f"{counts['macros']} macros"
        )
