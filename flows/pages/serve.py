"""Show runs while they go on: the report page on this machine alone, which loads itself again when a run has written something new."""

import hashlib
import json
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any, cast

from rich.console import Console

from data_catalog.errors import UserError
from flows.pages.run.data import RUN_FILES
from flows.pages.run.page import render
from flows.pages.shared.markup import escape_html

LOOPBACK_HOST = "127.0.0.1"
RESPONSE_HEADERS = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",  # no other site's page may hold what this one says
    "Content-Security-Policy": "frame-ancestors 'none'",  # a page cannot say this of itself; its own policy says the rest
}


def serve(runs: Sequence[Path], port: int = 8000, catalog: Path | None = None) -> None:
    """Serve the runs' page on this machine until Ctrl-C.

    Args:
        port: 0 takes any that is free.
        catalog: as in `write_report`.

    Raises:
        UserError: a folder holds no run, `catalog` no catalog, or the port is taken.
    """
    with open_server(runs, port, catalog) as server:
        address = f"http://{LOOPBACK_HOST}:{server.server_port}/"
        Console().print(
            f"{address}  (this machine only; Ctrl-C ends it)", highlight=False, soft_wrap=True
        )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            Console().print("ended", highlight=False)


def open_server(
    runs: Sequence[Path], port: int, catalog: Path | None = None
) -> ThreadingHTTPServer:
    """The server, listening; the caller runs and closes it.

    Raises:
        UserError: as `serve`.
    """
    page = LivePage(
        tuple(folder.absolute() for folder in runs), None if catalog is None else catalog.absolute()
    )
    page.current()  # what cannot be shown is said now, not to the browser

    class Handler(PageHandler):
        shown = page

    try:
        return ThreadingHTTPServer((LOOPBACK_HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"port {port}: cannot be listened on ({error}); give another, or 0 for any that is free"
        ) from error


class LivePage:
    """The page as the runs' files have it now; made again only when they have changed."""

    def __init__(self, runs: Sequence[Path], catalog: Path | None) -> None:
        self._runs, self._catalog = runs, catalog
        self._lock = Lock()
        self._made: tuple[str, bytes] | None = None

    def tag(self) -> str:
        """An ETag that changes whenever a file of a run does."""
        return f'"{hashlib.sha256(json.dumps([_state(run / name) for run in self._runs for name in RUN_FILES]).encode()).hexdigest()[:32]}"'

    def current(self) -> tuple[str, bytes]:
        """The tag and the page.

        Raises:
            UserError: a run is not there, or the catalog.
        """
        with self._lock:
            tag = self.tag()  # first: what is written while the page is made counts as new
            if self._made is None or self._made[0] != tag:
                self._made = tag, render(self._runs, self._catalog, live=tag).encode()
            return self._made


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


class PageHandler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of two paths, `/` and `/data`, and reads no other file, whatever the request says."""

    shown: LivePage
    timeout = 30  # seconds that a silent connection is kept
    server_version, sys_version = "clustermix", ""

    def do_GET(self) -> None:
        """Answer a request."""
        if not self._is_for_us():
            self._send(
                403,
                b"this server answers to the names 127.0.0.1 and localhost only\n",
                "text/plain",
            )
        elif self.path == "/":
            self._send_page()
        elif self.path == "/data":
            tag = self.shown.tag()
            if self.headers.get("If-None-Match") == tag:
                self._send(304, b"", "application/json", tag)
            else:
                self._send(200, json.dumps({"tag": tag}).encode(), "application/json", tag)
        else:
            self._send(404, b"there is nothing here but /\n", "text/plain")

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a page that asks every few seconds would fill the terminal."""

    def _is_for_us(self) -> bool:
        """Whether the request names this machine. A name that a stranger's page made to point here does not (DNS rebinding)."""
        port = cast(ThreadingHTTPServer, self.server).server_port
        return self.headers.get("Host") in {
            f"{name}:{port}" for name in (LOOPBACK_HOST, "localhost")
        }

    def _send_page(self) -> None:
        try:
            tag, page = self.shown.current()
            self._send(200, page, "text/html; charset=utf-8", tag)
        except UserError as error:
            text = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="5"><title>clustermix</title><p>{escape_html(error)}'
            self._send(503, text.encode(), "text/html; charset=utf-8")

    def _send(self, status: int, content: bytes, kind: str, tag: str | None = None) -> None:
        self.send_response(status)
        for name, value in (
            RESPONSE_HEADERS
            | {"Content-Type": kind, "Content-Length": str(len(content))}
            | ({"ETag": tag} if tag else {})
        ).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and status != 304:
            self.wfile.write(content)
