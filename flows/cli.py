"""The command line. Each command parses, calls one function, prints."""

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from data_catalog.errors import TrainingError, UserError
from flows import fetch
from flows.environment import end_quietly, prepare

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    help="Cluster a web corpus into thousands of domains; learn, while training, which of them your task needs.",
    epilog="Start with `clustermix demo`: it builds a catalog from text on this machine, trains on it, and writes a report.",
)
app.add_typer(fetch.app, name="fetch")
Runners = Literal["threads", "processes", "dask", "ray"]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a config key, e.g. --set cluster.beam=4")]
Version = Annotated[int | None, typer.Option("--version", min=1, help="An earlier version of the catalog; the newest if not given.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command(epilog="Example: clustermix demo --out demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the catalog, the runs and the report.")] = Path("demo"),
) -> None:
    """Build a catalog from this machine's Python documentation, train three times on it, and compare."""
    from flows.demo import run_demo

    run_demo(out)


@app.command(epilog="Example: clustermix plan configs/rpv2.toml")
def plan(config: Annotated[Path, typer.Argument(help="A TOML file; see configs/.")], overrides: Set = None, as_json: Json = False) -> None:
    """Say what a build would read, how long it would take and what it would leave on the disk. Writes nothing."""
    from data_catalog.settings import load
    from pipeline.config import Build
    from pipeline.planning.estimate import estimate

    found = estimate(load(Build, config, overrides or ()))
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        from flows.summary import print_estimate

        print_estimate(found)


@app.command(epilog="Example: clustermix build configs/sample.toml --set cluster.granularities='[16,256]'")
def build(
    config: Annotated[Path, typer.Argument(help="A TOML file; see configs/.")],
    overrides: Set = None,
    runner: Annotated[Runners, typer.Option(help="Where the parts run. The catalog is the same.")] = "threads",
    workers: Annotated[int | None, typer.Option(min=1, help="Parts at once; 4 threads, or a process a core, if not given.")] = None,
) -> None:
    """Build a catalog; work already done with this config is kept."""
    from data_catalog.settings import load
    from flows.summary import print_build
    from pipeline.config import Build
    from pipeline.run import check

    settings = load(Build, config, overrides or ())
    check(settings)  # a mistake is said before Prefect is started
    from flows.build import build as flow
    from flows.runners import task_runner

    print_build(Path(flow.with_options(task_runner=task_runner(runner, workers))(settings)))


@app.command(epilog="Example: clustermix add catalogs/sample configs/add_sample.toml")
def add(
    catalog: Path,
    config: Annotated[Path, typer.Argument(help="A TOML file with a source, targets, or both.")],
    overrides: Set = None,
) -> None:
    """Add documents or targets to a catalog, as a new version of it; the tree and what is there stay as they are."""
    from data_catalog.settings import load
    from flows.build import add as flow
    from flows.summary import print_build
    from pipeline.config import Addition

    print_build(Path(flow(catalog, load(Addition, config, overrides or ()))))


@app.command(epilog="Example: clustermix quality catalogs/sample --preset gopher --set alphabetic.most=0.3")
def quality(
    catalog: Annotated[Path | None, typer.Argument(help="A built catalog. Without one, the presets are listed.")] = None,
    retune: Annotated[bool, typer.Option("--retune", hidden=True)] = True,  # noqa: ARG001 - said for clarity: there is nothing else to do
    preset: Annotated[str | None, typer.Option(help="Rules to judge by; the catalog's own if not given.")] = None,
    thresholds: Annotated[list[str] | None, typer.Option("--set", metavar="RULE.BOUND=VALUE", help="e.g. alphabetic.most=0.3")] = None,
    sweep: Annotated[str | None, typer.Option(metavar="RULE", help="What each possible bound of this rule would keep.")] = None,
    as_json: Json = False,
) -> None:
    """Report what other quality thresholds would keep of a catalog, without reading any text."""
    from data_catalog.settings import load
    from flows.summary import print_tables
    from pipeline.config import Quality
    from pipeline.quality.retune import retune as judge
    from pipeline.quality.rules import list_rules
    from pipeline.quality.sweep import sweep as bounds_of

    asked = load(Quality, None, [f"thresholds.{threshold}" for threshold in thresholds or ()]).thresholds
    if catalog is None:
        tables = {"presets": list_rules()}
    elif sweep:
        tables = {sweep: bounds_of(catalog, sweep, preset, asked)}
    else:
        found = judge(catalog, preset, asked)
        tables = {"rules": found.rules, "kept": found.kept, "sources": found.sources}
    if as_json:
        print(json.dumps({name: table.to_pylist() for name, table in tables.items()}, indent=2, default=str))
    else:
        print_tables(tables)


@app.command(epilog='Example: clustermix query catalogs/shared "SELECT * FROM domains ORDER BY tokens DESC LIMIT 5"')
def query(
    catalog: Path,
    sql: Annotated[str, typer.Argument(metavar="SELECT")],
    runs: Annotated[list[str] | None, typer.Option(help="Run folders or globs, for the views runs, weights, scores, metrics.")] = None,
    version: Version = None,
    as_json: Json = False,
) -> None:
    """Ask a catalog, and the runs on it, in SQL. docs/sql.md has every view and macro; SHOW TABLES lists the views."""
    import data_catalog

    table = data_catalog.open(catalog, version, runs or ()).table(sql)
    if as_json:
        print(json.dumps(table.to_pylist(), indent=2, default=str))
    else:
        from flows.summary import print_table

        print_table(table)


@app.command(epilog="Example: clustermix train configs/train_sample.toml --set mixture.mixer=natural --processes 2")
def train(
    config: Annotated[Path, typer.Argument(help="A TOML file; see configs/.")],
    overrides: Set = None,
    processes: Annotated[int, typer.Option(min=1, help="One process a GPU, or CPU processes.")] = 1,
    accept: Annotated[
        list[str] | None, typer.Option(metavar="config|catalog|tokenizer", help="Go on with a begun run although this has changed.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the run would draw, need and cost. Writes nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Train on a built catalog and write the run's report."""
    from data_catalog.settings import load
    from flows.train import check
    from trainer.config import Train

    settings = load(Train, config, overrides or ())
    check(settings)
    if dry_run:
        from flows.preview import print_preview
        from trainer.preview import preview

        if as_json:
            print(preview(settings).model_dump_json(indent=2))
        else:
            print_preview(preview(settings))
        return
    from flows.report import write_report
    from flows.train import train as flow

    run = Path(flow(config, tuple(overrides or ()), processes, tuple(accept or ())))
    print(write_report([run], run / "report.html", settings.catalog))


@app.command("eval", epilog="Example: clustermix eval runs/sample-dga --target mmlu")
def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.")],
    targets: Annotated[list[str] | None, typer.Option("--target", help="A target of the run's catalog with lettered choices.")] = None,
    tasks: Annotated[list[str] | None, typer.Option("--task", help="A task of lm-evaluation-harness in --tasks-from.")] = None,
    tasks_from: Annotated[Path | None, typer.Option(help="Folder of task files (YAML).")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each task.")] = None,
    as_json: Json = False,
) -> None:
    """Measure accuracy on multiple-choice questions with lm-evaluation-harness, from local files. Writes RUN/accuracy.json."""
    from flows.summary import print_rows
    from trainer.accuracy import evaluate_run

    found = evaluate_run(run, targets or (), tasks or (), tasks_from, limit=limit)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print_rows([{"task": name, **values} for name, values in found["tasks"].items()])


@app.command(epilog="Examples: clustermix report catalogs/shared; clustermix report runs/dga runs/natural --catalog catalogs/shared")
def report(
    folders: Annotated[list[Path], typer.Argument(help="A catalog, or one run or several to compare.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    catalog: Annotated[Path | None, typer.Option(help="Of the runs: adds domain names and sizes.")] = None,
) -> None:
    """Write one self-contained page: to look around in a catalog, or on one run or several."""
    if len(folders) == 1 and (folders[0] / "catalog.json").is_file():
        from flows.catalog_page import write_catalog_page

        print(write_catalog_page(folders[0], out))
    else:
        from flows.report import write_report

        print(write_report(folders, out, catalog))


@app.command(epilog="Example: clustermix serve runs/sample-dga --catalog catalogs/sample")
def serve(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, finished or still going on.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    catalog: Annotated[Path | None, typer.Option(help="Adds domain names and sizes.")] = None,
) -> None:
    """Show runs while they go on, to this machine's browser alone. Ctrl-C ends it."""
    from flows.serve import serve as show

    show(runs, port, catalog)


@app.command(epilog="Example: clustermix verify catalogs/shared")
def verify(catalog: Path, version: Version = None) -> None:
    """Check sizes, checksums, counts and sums of a catalog's files against its manifest."""
    from data_catalog.verify import check

    report = check(catalog, version)
    for fault in report.faults:
        print(fault)
    if report.faults:
        raise typer.Exit(1)
    print(
        f"{catalog}: version {report.version}, {report.files} files, {report.documents:,} documents, {report.tokens:,} tokens, "
        f"{report.distributions} distributions: sound"
    )


def main() -> None:
    """Exit codes: 0 done; 1 failed; 2 the request cannot be carried out, one sentence on standard error."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    prepare()
    end_quietly()
    try:
        app()
    except UserError as error:
        print(f"clustermix: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        print(f"clustermix: this command needs {error.name}, which is not installed: pip install 'clustermix[all]'", file=sys.stderr)
        sys.exit(2)
    except TrainingError as error:
        print(f"clustermix: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
