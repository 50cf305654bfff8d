"""Commands that query a catalog: domains, query, quality."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli import complete
from flows.cli.options import ASK, CatalogArgument, JsonOption, VersionOption, examples
from flows.cli.output import print_json

ask_commands = typer.Typer()


@ask_commands.command(
    "domains",
    rich_help_panel=ASK,
    epilog=examples(
        "domains catalogs/sample",
        "domains catalogs/sample --level 64 --target heldout_law",
        'domains catalogs/sample --search "court appeal"',
        "domains catalogs/sample --level 64 --domain 28",
    ),
)
def domains_command(
    catalog: CatalogArgument,
    level: Annotated[
        int | None,
        typer.Option(
            help="Level, named by its number of domains. Default: the coarsest, or all with "
            "--search.",
            autocompletion=complete.levels,
        ),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            metavar="WORDS", help="List domains whose terms contain these words, best match first."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Sort by the weight in this target or distribution.",
            autocompletion=complete.distributions,
        ),
    ] = None,
    domain: Annotated[
        int | None, typer.Option(min=0, help="Show the details of this domain of the level.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of domains to list.")] = 20,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """List domains with documents, tokens, terms and flags, largest first, or show one domain."""
    import data_catalog
    from data_catalog.query.browse import describe_domain, find_domains

    opened = data_catalog.open(catalog, version)
    if domain is not None:
        if search or target:
            other = "--search" if search else "--target"
            raise data_catalog.UserError(
                f"--domain {domain}: cannot be combined with {other}. Leave out one of them."
            )
        details = describe_domain(opened, level or opened.levels.granularities[0], domain)
        if as_json:
            print_json(details)
        else:
            from flows.cli.summary import print_domain

            print_domain(details)
        return
    table = find_domains(opened, level=level, search=search, target=target, limit=limit)
    if as_json:
        print_json(
            {"catalog": str(catalog), "version": opened.version, "domains": table.to_pylist()}
        )
    else:
        from flows.cli.summary import print_table

        print_table(table)


@ask_commands.command(
    "query",
    rich_help_panel=ASK,
    epilog=examples(
        'query catalogs/sample "SELECT * FROM domains ORDER BY tokens DESC LIMIT 5"',
        "query catalogs/sample \"FROM nearest_domains('heldout_law', 3)\" --json",
        'query catalogs/sample --runs "runs/*" "FROM runs"',
    ),
)
def query_command(
    catalog: CatalogArgument,
    sql: Annotated[
        str,
        typer.Argument(
            metavar="SELECT", help="A SELECT or FROM statement of DuckDB.", show_default=False
        ),
    ],
    runs: Annotated[
        list[str] | None,
        typer.Option(
            help="Run folder or glob, for the views runs, weights, scores and metrics. Repeatable.",
            autocompletion=complete.runs,
        ),
    ] = None,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Query a catalog, and the runs trained on it, with SQL.

    docs/sql.md documents every view and macro. The statement SHOW TABLES lists
    the views.
    """
    import data_catalog

    table = data_catalog.open(catalog, version, runs or ()).table(sql)
    if as_json:
        print_json(table.to_pylist())
    else:
        from flows.cli.summary import print_table

        print_table(table)


@ask_commands.command(
    "quality",
    rich_help_panel=ASK,
    epilog=examples(
        "quality",
        "quality catalogs/sample --preset gopher --set alphabetic.most=0.3",
        "quality catalogs/sample --sweep words",
    ),
)
def quality_command(
    catalog: Annotated[
        Path | None,
        typer.Argument(
            metavar="CATALOG",
            help="Folder of a built catalog. Without it, the presets are listed.",
            autocompletion=complete.catalogs,
        ),
    ] = None,
    retune: Annotated[  # noqa: ARG001
        bool,
        typer.Option("--retune", hidden=True, help="Has no effect. Kept for older scripts."),
    ] = True,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Preset of quality rules. Default: the catalog's own.",
            autocompletion=complete.presets,
        ),
    ] = None,
    thresholds: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="RULE.BOUND=VALUE",
            help="Override a bound, e.g. --set alphabetic.most=0.3. Repeatable.",
        ),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="RULE", help="List the documents kept for each possible bound of this rule."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Report how many documents other quality thresholds would keep, without reading any text."""
    from data_catalog.settings import load
    from flows.progress import progress_callback
    from pipeline.config import Quality
    from pipeline.quality.retune import retune as judge
    from pipeline.quality.rules import list_rules
    from pipeline.quality.sweep import sweep as sweep_bounds

    bounds = load(
        Quality, None, [f"thresholds.{threshold}" for threshold in thresholds or ()]
    ).thresholds
    tables: dict[str, Any]
    with progress_callback("quality", "documents") as on_progress:
        if catalog is None:
            tables = {"presets": list_rules()}
        elif sweep:
            tables = {sweep: sweep_bounds(catalog, sweep, preset, bounds, on_progress=on_progress)}
        else:
            result = judge(catalog, preset, bounds, on_progress)
            tables = {"rules": result.rules, "kept": result.kept, "sources": result.sources}
    if as_json:
        print_json({name: table.to_pylist() for name, table in tables.items()})
    else:
        from flows.cli.summary import print_tables

        print_tables(tables)
