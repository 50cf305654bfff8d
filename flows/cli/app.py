"""The commands of `clustermix`. They are in the other modules of this package.

`docs/commands.md` documents the exit codes.
"""

import logging
from collections.abc import Sequence
from typing import Annotated

import typer

from data_catalog.errors import UserError
from flows.cli import ask, build, cluster, experiment, export, fetch, init, pages, push, train
from flows.cli.failures import OUTPUT_CLOSED, print_error
from flows.cli.main import DEBUG_OPTION
from flows.cli.options import BUILD, local_paths_only
from flows.cli.output import OutputClosed, discard_output, flush_output, protect_output
from flows.environment import end_quietly, set_library_defaults

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    help=(
        "Cluster a web corpus into thousands of domains. "
        "Learn during training which of them a task needs."
    ),
    epilog=(
        "Start with `clustermix demo`: it builds a catalog from text on this machine, "
        "trains on it, and writes a report."
    ),
)
app.add_typer(pages.start_commands)
app.add_typer(init.init_commands)
app.add_typer(fetch.fetch_commands, name="fetch", rich_help_panel=BUILD)
app.add_typer(export.export_commands, name="export", rich_help_panel=BUILD)
for commands in (
    build.build_commands,
    cluster.worker_commands,
    ask.ask_commands,
    train.train_commands,
    push.push_commands,
    experiment.experiment_commands,
    pages.pages_commands,
):
    app.add_typer(commands)
for group in app.registered_groups:
    for command in group.typer_instance.registered_commands if group.typer_instance else ():
        if command.callback:
            command.callback = local_paths_only(command.callback)


class _ConsoleHandler(logging.Handler):
    """Prints log records above a running bar, which a plain stream would break."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record on standard error."""
        from flows.progress import console  # most commands log nothing

        console.print(self.format(record), highlight=False, markup=False, soft_wrap=True)


def _print_version(requested: bool) -> None:
    if requested:
        from data_catalog import __version__

        print(f"clustermix {__version__}")
        raise typer.Exit


@app.callback()
def common_options(
    debug: Annotated[  # noqa: ARG001 - `main` reads it
        bool,
        typer.Option(
            DEBUG_OPTION,
            help="Show tracebacks and Prefect's log. Also accepted after a command.",
        ),
    ] = False,
    version: Annotated[  # noqa: ARG001 - its callback prints it
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Configure the libraries before any command runs."""
    set_library_defaults()


def run(words: Sequence[str], debug: bool) -> int:
    """Run a command and return its exit code.

    Args:
        words: The command line, with `DEBUG_OPTION` first if it is set.
        debug: Show tracebacks and the log of Prefect.
    """
    protect_output()
    logging.basicConfig(
        level=logging.INFO if debug else logging.WARNING,
        format="%(levelname)s %(message)s",
        handlers=[_ConsoleHandler()],
    )
    end_quietly()
    try:
        code = app(words, prog_name="clustermix", standalone_mode=False)
        flush_output()
    except OutputClosed:
        discard_output()
        return OUTPUT_CLOSED
    except Exception as error:
        code = print_error(error, debug)
        try:
            flush_output()
        except (OutputClosed, UserError):
            discard_output()
    return code or 0
