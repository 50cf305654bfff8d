"""The option `--prefect`, and whether a command runs as a Prefect flow."""

from contextlib import AbstractContextManager, nullcontext
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


def prefect_server_if(in_prefect: bool) -> AbstractContextManager[None]:
    """Return a block with a Prefect server for flows, or one that does nothing.

    Args:
        in_prefect: The result of `uses_prefect`.

    Raises:
        UserError: Prefect cannot work in this environment, or its server does not answer.
    """
    if not in_prefect:
        return nullcontext()
    from flows.prefect_server import private_server

    return private_server()
