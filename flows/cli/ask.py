"""Commands that ask a catalog: domains, query, quality."""

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
            help="How many domains it has; the coarsest if not given, all for --search.",
            autocompletion=complete.levels,
        ),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(metavar="WORDS", help="Domains whose terms hold these words, the best first."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="By the weight of a target or distribution.",
            autocompletion=complete.distributions,
        ),
    ] = None,
    domain: Annotated[
        int | None, typer.Option(min=0, help="One domain of the level, closely.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Domains to list.")] = 20,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """List domains, the largest first: documents, tokens, terms, and what looks wrong; or show one of them."""
    import data_catalog
    from data_catalog.query.browse import describe_domain, find_domains

    opened = data_catalog.open(catalog, version)
    if domain is not None:
        if search or target:
            raise data_catalog.UserError(
                "--domain shows one domain: leave out --search and --target"
            )
        found = describe_domain(opened, level or opened.levels.granularities[0], domain)
        if as_json:
            print_json(found)
        else:
            from flows.cli.summary import print_domain

            print_domain(found)
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
        typer.Argument(metavar="SELECT", help="One SELECT, or DuckDB's FROM.", show_default=False),
    ],
    runs: Annotated[
        list[str] | None,
        typer.Option(
            help="Run folders or globs, for the views runs, weights, scores, metrics.",
            autocompletion=complete.runs,
        ),
    ] = None,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a catalog, and the runs on it, in SQL. docs/sql.md has every view and macro; SHOW TABLES lists the views."""
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
            metavar="[CATALOG]",
            help="A built catalog. Without one, the presets are listed.",
            autocompletion=complete.catalogs,
        ),
    ] = None,
    retune: Annotated[  # noqa: ARG001
        bool,
        typer.Option("--retune", hidden=True, help="Said for clarity: it is all that is done."),
    ] = True,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Rules to judge by; the catalog's own if not given.",
            autocompletion=complete.presets,
        ),
    ] = None,
    thresholds: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="RULE.BOUND=VALUE", help="e.g. alphabetic.most=0.3"),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(metavar="RULE", help="What each possible bound of this rule would keep."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Report what other quality thresholds would keep of a catalog, without reading any text."""
    from data_catalog.settings import load
    from flows.progress import progress_callback
    from pipeline.config import Quality
    from pipeline.quality.retune import retune as judge
    from pipeline.quality.rules import list_rules
    from pipeline.quality.sweep import sweep as bounds_of

    asked = load(
        Quality, None, [f"thresholds.{threshold}" for threshold in thresholds or ()]
    ).thresholds
    tables: dict[str, Any]
    with progress_callback("quality", "documents") as said:
        if catalog is None:
            tables = {"presets": list_rules()}
        elif sweep:
            tables = {sweep: bounds_of(catalog, sweep, preset, asked, on_progress=said)}
        else:
            found = judge(catalog, preset, asked, said)
            tables = {"rules": found.rules, "kept": found.kept, "sources": found.sources}
    if as_json:
        print_json({name: table.to_pylist() for name, table in tables.items()})
    else:
        from flows.cli.summary import print_tables

        print_tables(tables)
