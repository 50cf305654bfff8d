"""The `clustermix` command. Its sub-commands are in the other modules of this package.

`docs/commands.md` documents the exit codes.
"""

import logging
import sys
from typing import Annotated

import typer

from data_catalog.errors import UserError
from flows.cli import ask, build, export, fetch, pages, train
from flows.cli.failures import INTERRUPTED, OUTPUT_CLOSED, print_error
from flows.cli.interrupt import TERMINATED, Terminated, end_now, raise_on_sigterm
from flows.cli.options import BUILD
from flows.cli.output import OutputClosed, discard_output, flush_output, protect_output
from flows.environment import end_quietly, set_library_defaults

DEBUG_OPTION = "--debug"
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
app.add_typer(fetch.fetch_commands, name="fetch", rich_help_panel=BUILD)
app.add_typer(export.export_commands, name="export", rich_help_panel=BUILD)
for commands in (
    build.build_commands,
    ask.ask_commands,
    train.train_commands,
    pages.pages_commands,
):
    app.add_typer(commands)


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


def main() -> None:
    """Run the command line of this process.

    Exit codes: 0 success, 1 failure, 2 invalid request, 130 interrupted (Ctrl-C), 141 nobody reads
    the output, 143 terminated (SIGTERM).
    """
    protect_output()
    words = sys.argv[1:]
    debug = DEBUG_OPTION in words[: words.index("--") if "--" in words else None]
    if debug:
        words = [DEBUG_OPTION, *(word for word in words if word != DEBUG_OPTION)]
    logging.basicConfig(
        level=logging.INFO if debug else logging.WARNING,
        format="%(levelname)s %(message)s",
        stream=sys.stderr,
    )
    end_quietly()
    raise_on_sigterm()
    try:
        code = app(words, prog_name="clustermix", standalone_mode=False)
        flush_output()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OutputClosed:
        discard_output()
        sys.exit(OUTPUT_CLOSED)
    except Terminated:
        end_now(TERMINATED)
    except Exception as error:
        code = print_error(error, debug)
        try:
            flush_output()
        except (OutputClosed, UserError):
            discard_output()
        sys.exit(code)
    if code == INTERRUPTED:
        print("clustermix: interrupted", file=sys.stderr)
        end_now(INTERRUPTED)
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
