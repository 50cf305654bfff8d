"""Prefect's server for the flows of one command.

The server runs in a session of its own: Ctrl-C on a terminal and signals to the command's process
group do not reach it, so that a flow can end in order. It dies with the command, even if the
command was killed with SIGKILL. Its log goes to a temporary file.

Only the command can use the server. It listens on the loopback address, and every request but the
health check needs a password, which both processes get in environment variables. Requests of web
pages are refused by their origin, or by their host name if it was rebound to this machine.

`python -m flows.prefect_server PARENT SOCKET` is the process of the server.
"""

import http.client
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from tempfile import TemporaryFile
from typing import IO

from data_catalog.errors import UserError
from flows.interrupt import is_ending
from flows.parent_watch import stop_with_parent
from flows.prefect_environment import find_server, prepare
from flows.prefect_settings import named_url
from flows.progress import working

HOST = "127.0.0.1"
START_SECONDS = 300.0  # the first start creates the database, which takes long on a busy machine
POLL_SECONDS = 0.05
STOP_SECONDS = 5.0


@contextmanager
def private_server() -> Iterator[None]:
    """Run Prefect's server for the flows of this block.

    Only checks the server that the user's settings of Prefect name, if they name one.

    Raises:
        UserError: Prefect cannot work in this environment, or its server does not answer.
    """
    prepare()
    if named_url() and find_server() is not None:
        yield
        return
    password = f"clustermix:{secrets.token_urlsafe()}"
    with TemporaryFile() as log:
        server, port = _start(password, log)
        try:
            # These imports take seconds, like the start of the server.
            if find_server() is not None:
                server.kill()
                yield
                return
            from prefect.events.worker import EventsWorker  # noqa: PLC0415
            from prefect.logging.handlers import APILogWorker  # noqa: PLC0415
            from prefect.settings import temporary_settings  # noqa: PLC0415

            with working("Starting Prefect's server. Its first start takes longer."):
                _wait_until_ready(server, port, log)
            url = f"{_address(port)}/api"
            variables = {"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": password}
            settings = {"api.url": url, "api.auth_string": password}
            with _environment(variables), temporary_settings(settings):
                try:
                    yield
                finally:
                    # Otherwise these threads would try to reach the server after its end. A command
                    # that a signal ends has no time for them.
                    if not is_ending() and server.poll() is None:
                        for worker in (APILogWorker, EventsWorker):
                            worker.drain_all(timeout=STOP_SECONDS)
        finally:
            if is_ending():
                server.kill()
            _stop(server)


def _start(password: str, log: IO[bytes]) -> "tuple[subprocess.Popen[bytes], int]":
    """Start the server's process. Return it and its port."""
    with closing(socket.socket()) as listener:  # bound here, so that the port is free
        listener.bind((HOST, 0))
        port = listener.getsockname()[1]
        environment = {
            **os.environ,
            "PREFECT_SERVER_API_AUTH_STRING": password,
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": _address(port),
        }
        arguments = [str(os.getpid()), str(listener.fileno())]
        process = subprocess.Popen(
            # -P: modules in the current folder are not imported
            [sys.executable, "-P", "-m", "flows.prefect_server", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    return process, port


def _address(port: int) -> str:
    return f"http://{HOST}:{port}"


def _wait_until_ready(server: "subprocess.Popen[bytes]", port: int, log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _is_healthy(port):
        if server.poll() is not None or time.monotonic() > deadline:
            raise UserError(
                f"Prefect's server on this machine did not start: {_cause(log)}. Its files are in "
                f"{os.environ.get('PREFECT_HOME', '~/.prefect')} (PREFECT_HOME). Check that this "
                "folder can be written and its disk has room, or set PREFECT_API_URL to a server."
            )
        time.sleep(POLL_SECONDS)


def _is_healthy(port: int) -> bool:
    """Return whether the server answers. Proxies are not used."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _cause(log: IO[bytes]) -> str:
    """Return the last error of a log with tracebacks, or its last line."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
    lines = [line for line in lines if line] or ["it did not answer"]
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return (errors or lines)[-1].rstrip(".")


def _stop(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, which processes that start in the block inherit."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(parent: int, descriptor: int) -> bool:
    """Run the server until SIGTERM. Return whether it has started."""
    stop_with_parent(parent, signal.SIGKILL)
    from prefect.settings import PREFECT_API_URL  # noqa: PLC0415

    if PREFECT_API_URL.value():  # the command uses the server of this profile
        return True
    import uvicorn  # noqa: PLC0415
    from prefect.server.api.server import create_app  # noqa: PLC0415
    from starlette.middleware.trustedhost import TrustedHostMiddleware  # noqa: PLC0415

    app = TrustedHostMiddleware(create_app(ephemeral=True, final=True), [HOST])
    config = uvicorn.Config(app, lifespan="on", log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.run([socket.socket(fileno=descriptor)])
    return server.started


if __name__ == "__main__":
    sys.exit(0 if _serve(*map(int, sys.argv[1:])) else 1)
