"""Flows that a Python program can call without a Prefect server.

Prefect itself would start a server that Ctrl-C ends before the flow, and that everyone on this
machine can use.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Flow
from prefect.settings import PREFECT_API_URL

from flows.prefect_server import private_server

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def served_flow(
    **options: Any,
) -> Callable[[Callable[_Parameters, _Result]], Flow[_Parameters, _Result]]:
    """Return a decorator like `prefect.flow`, for a flow that may start a private server.

    Args:
        options: Options of `prefect.flow`.
    """
    return lambda function: ServedFlow(function, **options)


class ServedFlow(Flow[Any, Any]):
    """A flow that runs with a private server if no other server is configured."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Run the flow and return its result.

        Raises:
            UserError: Prefect cannot work in this environment.
        """
        if PREFECT_API_URL.value():  # of this flow's parent, of the command or of the user
            return super().__call__(*arguments, **options)
        with private_server():
            return super().__call__(*arguments, **options)
