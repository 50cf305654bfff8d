"""`clustermix push`: upload a run's model to the hub of Hugging Face."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli import complete
from flows.cli.options import TRAIN, examples

push_commands = typer.Typer()


@push_commands.command(
    "push",
    rich_help_panel=TRAIN,
    epilog=examples("push runs/sample-dga user/sample-dga --private"),
)
def push_command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="Folder of a finished run.",
            show_default=False,
            autocompletion=complete.runs,
        ),
    ],
    repository: Annotated[
        str,
        typer.Argument(
            metavar="REPO", help="Repository on the hub, e.g. user/name.", show_default=False
        ),
    ],
    private: Annotated[
        bool, typer.Option("--private", help="Create the repository as a private one.")
    ] = False,
) -> None:
    """Upload the model of a run, with its card, to the hub of Hugging Face.

    The card, model/README.md, was made from the run. Add a licence to it first.
    """
    from data_catalog.transfer.push_model import push_model
    from flows.progress import working

    with working(f"Uploading {run / 'model'} to {repository}."):
        address = push_model(run, repository, private=private)
    print(address)
