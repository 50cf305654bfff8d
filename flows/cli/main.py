"""The command line: its commands are in `flows/cli`, `fetch` and `export`. Exit codes are said in `docs/commands.md`."""

import logging
import sys
from typing import Annotated

import typer

from flows.cli import ask, build, export, fetch, pages, train
from flows.cli.failures import INTERRUPTED, print_error
from flows.cli.interrupt import TERMINATED, Terminated, end_now, obey_sigterm
from flows.cli.options import BUILD
from flows.environment import end_quietly, prepare

DEBUG = "--debug"
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    help="Cluster a web corpus into thousands of domains; learn, while training, which of them your task needs.",
    epilog="Start with `clustermix demo`: it builds a catalog from text on this machine, trains on it, and writes a report.",
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


def _print_version(wanted: bool) -> None:
    if wanted:
        from data_catalog import __version__

        print(f"clustermix {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool,
        typer.Option(
            DEBUG, help="Failures with their traceback, and Prefect's log. Also after a command."
        ),
    ] = False,
    version: Annotated[  # noqa: ARG001 - its callback says it
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Say the version and end."
        ),
    ] = False,
) -> None:
    """Before any command: settings of the libraries."""
    prepare(debug)


def main() -> None:
    """Run the command line of this process. Exit codes: 0 done; 1 failed; 2 the request cannot be carried out; 130 interrupted."""
    words = sys.argv[1:]
    debug = DEBUG in words[: words.index("--") if "--" in words else None]
    if debug:
        words = [DEBUG, *(word for word in words if word != DEBUG)]
    logging.basicConfig(
        level=logging.INFO if debug else logging.WARNING,
        format="%(levelname)s %(message)s",
        stream=sys.stderr,
    )
    end_quietly()
    obey_sigterm()
    try:
        code = app(words, prog_name="clustermix", standalone_mode=False)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Terminated:
        end_now(TERMINATED)
    except Exception as error:
        sys.exit(print_error(error, debug))
    if code == INTERRUPTED:
        print("clustermix: interrupted", file=sys.stderr)
        end_now(INTERRUPTED)
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
