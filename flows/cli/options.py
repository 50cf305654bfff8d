"""What several commands share: options, and how their examples are written."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli import complete

START, BUILD, ASK, TRAIN, LOOK = "Start here", "Build", "Ask", "Train", "Look"  # panels of the help


def examples(*lines: str) -> str:
    """Command lines for the end of a command's help."""
    return "\n".join(
        [f"Example{'s' if len(lines) > 1 else ''}:", *(f"  clustermix {line}" for line in lines)]
    )


ConfigArgument = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="A TOML file; see configs/.", show_default=False)
]
CatalogArgument = Annotated[
    Path,
    typer.Argument(
        metavar="CATALOG",
        help="A built catalog's folder.",
        show_default=False,
        autocompletion=complete.catalogs,
    ),
]
BuildSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a config key, e.g. --set cluster.beam=4",
        autocompletion=complete.build_settings,
    ),
]
TrainSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a config key, e.g. --set mixture.mixer=natural",
        autocompletion=complete.train_settings,
    ),
]
VersionOption = Annotated[
    int | None,
    typer.Option(
        "--version", min=1, help="An earlier version of the catalog; the newest if not given."
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON value alone; notes and progress go to standard error."
    ),
]
