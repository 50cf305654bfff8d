"""The option `--prefect`, and whether a command runs as a Prefect flow."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Annotated

import typer

from data_catalog.errors import UserError
from flows.prefect_settings import named_url

PrefectOption = Annotated[
    bool,
    typer.Option(
        "--prefect",
        help="Run as a Prefect flow. Always the case if Prefect's settings name a server. "
        "Otherwise a temporary one is started, which takes about ten seconds.",
    ),
]


@contextmanager
def prefect_if_chosen(option: bool) -> Iterator[bool]:
    """Yield whether the block runs flows of Prefect. If so, it has a server.

    Args:
        option: The value of `--prefect`.

    Raises:
        UserError: Prefect is not installed, cannot work in this environment, or its server does not
            answer.
    """
    if not uses_prefect(option):
        yield False
        return
    from flows.prefect_server import private_server

    with private_server():
        yield True


def uses_prefect(option: bool) -> bool:
    """Return whether a command runs as a flow. If so, check that a named server answers.

    Prefect is not imported, which takes seconds.

    Args:
        option: The value of `--prefect`.

    Raises:
        UserError: Prefect is not installed, or its server does not answer.
    """
    if not option and named_url() is None:
        return False
    if find_spec("prefect") is None:
        reason = "--prefect" if option else "PREFECT_API_URL"
        raise UserError(
            f"{reason}: Prefect is not installed. Run: pip install 'clustermix[flows]', or run "
            f"without {reason}."
        )
    from flows.prefect_environment import check_named_server

    check_named_server()
    return True
