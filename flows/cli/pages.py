"""Commands that show results: demo, report, serve."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from data_catalog.place import Place, parse_folder
from flows.cli import complete
from flows.cli.folders import holds_run
from flows.cli.options import LOOK, START, JsonOption, examples
from flows.cli.output import print_json, stdout_for_json
from flows.cli.prefect import PrefectOption, prefect_server_if, uses_prefect

pages_commands = typer.Typer()
start_commands = typer.Typer()
RunsCatalog = Annotated[
    Path | None,
    typer.Option(
        help="The catalog of the runs. Adds names and sizes of domains to the page.",
        autocompletion=complete.catalogs,
    ),
]


@start_commands.command(
    "demo", rich_help_panel=START, epilog=examples("demo", "demo --out /tmp/demo --json")
)
def demo_command(
    out: Annotated[
        Path, typer.Option(help="Folder for the catalog, the runs and the report.")
    ] = Path("demo"),
    prefect: PrefectOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build a catalog from local Python documentation, train four runs on it, and compare them.

    Takes a few minutes.
    """
    in_prefect = uses_prefect(prefect)
    with stdout_for_json(as_json), prefect_server_if(in_prefect):
        from flows.cli.demo import VARIANTS, run_demo

        if in_prefect:
            from flows.build import build as build_flow
            from flows.experiment import experiment as experiment_flow

            run_demo(out, build_flow, experiment_flow)
        else:
            from flows.local.build import build
            from flows.local.experiment import experiment

            run_demo(out, build, experiment)
    if as_json:
        from flows.pages.run import summary_table

        runs = summary_table([out / "runs" / variant for variant in VARIANTS])
        print_json(
            {"catalog": str(out / "catalog"), "page": str(out / "report.html"), "runs": runs}
        )


@pages_commands.command(
    "report",
    rich_help_panel=LOOK,
    epilog=examples(
        "report catalogs/sample --out catalog.html",
        "report runs/sample-dga runs/sample-natural --catalog catalogs/sample --out runs.html",
    ),
)
def report_command(
    folders: Annotated[
        list[Any],
        typer.Argument(
            metavar="CATALOG|RUN...",
            help="Folder or URL of a catalog, or of one or more runs to compare.",
            show_default=False,
            parser=parse_folder,
            autocompletion=complete.catalogs_and_runs,
        ),
    ],
    out: Annotated[
        Any,
        typer.Option(
            help="HTML file to write, on this machine or by its URL.", parser=parse_folder
        ),
    ] = "report.html",
    catalog: RunsCatalog = None,
    as_json: JsonOption = False,
) -> None:
    """Write a self-contained HTML page about a catalog, or about one or more runs."""
    from flows.progress import working

    about_catalog = len(folders) == 1 and not holds_run(folders[0])
    with working(f"Writing {out}"):
        if about_catalog:
            from flows.pages.catalog import write_catalog_page

            page = write_catalog_page(folders[0], out)
        else:
            from data_catalog.transfer.run_copy import local_run
            from flows.pages.run import write_report

            with ExitStack() as stack:
                runs = [stack.enter_context(local_run(folder)) for folder in folders]
                page = write_report(runs, out, catalog)
    if as_json:
        about = "catalog" if about_catalog else "runs"
        print_json({"page": str(page), "bytes": Place(str(page)).size(), "about": about})
    else:
        print(page)


@pages_commands.command(
    "serve",
    rich_help_panel=LOOK,
    epilog=examples("serve runs/sample-dga --catalog catalogs/sample", "serve runs/* --port 0"),
)
def serve_command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folders of finished or unfinished runs.",
            show_default=False,
            autocompletion=complete.runs,
        ),
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on. 0 picks a free port.")
    ] = 8000,
    catalog: RunsCatalog = None,
) -> None:
    """Serve a live page about runs to browsers on this machine, until Ctrl-C."""
    from flows.pages.serve import open_server, server_url

    with open_server(runs, port, catalog) as server:
        print(f"{server_url(server)} (this machine only, Ctrl-C to stop)", flush=True)
        server.serve_forever()
