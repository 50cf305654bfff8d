"""Commands to look at things with: demo, report, serve."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli import complete
from flows.cli.options import LOOK, START, Json, examples
from flows.cli.output import alone, print_json

app = typer.Typer()
start = typer.Typer()
RunsCatalog = Annotated[
    Path | None,
    typer.Option(
        help="Of the runs: adds domain names and sizes.", autocompletion=complete.catalogs
    ),
]


@start.command(rich_help_panel=START, epilog=examples("demo", "demo --out /tmp/demo --json"))
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the catalog, the runs and the report.")
    ] = Path("demo"),
    as_json: Json = False,
) -> None:
    """Build a catalog from this machine's Python documentation, train three times on it, and compare. Takes some minutes."""
    from flows.cli.demo import MIXERS, run_demo

    with alone(as_json):
        run_demo(out)
    if as_json:
        from flows.pages.run import summary_table

        runs = summary_table([out / "runs" / mixer for mixer in MIXERS])
        print_json(
            {"catalog": str(out / "catalog"), "page": str(out / "report.html"), "runs": runs}
        )


@app.command(
    rich_help_panel=LOOK,
    epilog=examples(
        "report catalogs/sample --out catalog.html",
        "report runs/sample-dga runs/sample-natural --catalog catalogs/sample --out runs.html",
    ),
)
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="CATALOG|RUN...",
            help="A catalog, or one run or several to compare.",
            show_default=False,
            autocompletion=complete.shown,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    catalog: RunsCatalog = None,
    as_json: Json = False,
) -> None:
    """Write one self-contained page: to look around in a catalog, or on one run or several."""
    from flows.progress import working

    about_catalog = len(folders) == 1 and (folders[0] / "catalog.json").is_file()
    with working(f"writing {out}"):
        if about_catalog:
            from flows.pages.catalog import write_catalog_page

            page = write_catalog_page(folders[0], out)
        else:
            from flows.pages.run import write_report

            page = write_report(folders, out, catalog)
    if as_json:
        print_json(
            {
                "page": str(page),
                "bytes": page.stat().st_size,
                "about": "catalog" if about_catalog else "runs",
            }
        )
    else:
        print(page)


@app.command(
    rich_help_panel=LOOK,
    epilog=examples("serve runs/sample-dga --catalog catalogs/sample", "serve runs/* --port 0"),
)
def serve(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folders of runs, finished or going on.",
            show_default=False,
            autocompletion=complete.runs,
        ),
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    catalog: RunsCatalog = None,
) -> None:
    """Show runs while they go on, to this machine's browser alone. Ctrl-C ends it."""
    from flows.pages.serve import serve as show

    show(runs, port, catalog)
