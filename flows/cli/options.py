"""Arguments and options that several commands share, and the format of their examples."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from data_catalog.folders import refuse_url
from data_catalog.place import parse_folder
from flows.cli import complete

# Panels of `clustermix --help`.
START, BUILD, ASK, TRAIN, LOOK = "Start here", "Build", "Ask", "Train", "Look"


def examples(*lines: str) -> str:
    """Return the epilog of a command's help: example command lines without the program's name."""
    return "\n".join(
        [f"Example{'s' if len(lines) > 1 else ''}:", *(f"  clustermix {line}" for line in lines)]
    )


def local_paths_only(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that refuses URLs in arguments and options of type `Path`."""

    @wraps(command)
    def checked(**arguments: Any) -> None:
        for name, value in arguments.items():
            for path in value if isinstance(value, list | tuple) else [value]:
                if isinstance(path, Path):
                    refuse_url(path, name)
        command(**arguments)

    return checked


ConfigArgument = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG", help="Config file (TOML). See configs/ for examples.", show_default=False
    ),
]
CatalogArgument = Annotated[
    Any,  # a `Folder`
    typer.Argument(
        metavar="CATALOG",
        help="Folder or URL of a built catalog.",
        show_default=False,
        parser=parse_folder,
        autocompletion=complete.catalogs,
    ),
]
LocalCatalogArgument = Annotated[
    Path,
    typer.Argument(
        metavar="CATALOG",
        help="Folder of a built catalog.",
        show_default=False,
        autocompletion=complete.catalogs,
    ),
]
BuildSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a config key, e.g. --set cluster.beam=4. Repeatable.",
        autocompletion=complete.build_settings,
    ),
]
TrainSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a config key, e.g. --set mixture.mixer=natural. Repeatable.",
        autocompletion=complete.train_settings,
    ),
]
VersionOption = Annotated[
    int | None,
    typer.Option("--version", min=1, help="Version of the catalog. Default: the newest."),
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print a single JSON value to standard output. Progress goes to standard error.",
    ),
]
