"""Serve a live page about runs on this machine. The page reloads when a run has new results."""

import hashlib
import json
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any, cast

from data_catalog.errors import UserError
from data_catalog.format.run_files import RUN_FILES
from flows.pages.run.page import render
from flows.pages.shared.markup import escape_html

LOOPBACK_HOST = "127.0.0.1"
RESPONSE_HEADERS = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",  # other sites may not embed the answers
    # The page's own policy sets everything else, but it cannot set `frame-ancestors`.
    "Content-Security-Policy": "frame-ancestors 'none'",
}
HTML_TYPE = "text/html; charset=utf-8"
ERROR_PAGE = (
    '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="5">'
    "<title>clustermix</title><p>{}"
)


def open_server(
    runs: Sequence[Path], port: int = 8000, catalog: Path | None = None
) -> ThreadingHTTPServer:
    """Return a listening server for the page of some runs.

    The caller calls `serve_forever` and closes the server.

    Args:
        runs: Folders of finished or unfinished runs.
        port: Port to listen on. 0 picks a free port.
        catalog: Catalog of the runs. See `write_report`.

    Raises:
        UserError: A folder contains no run, `catalog` is not a catalog, or the port is in use.
    """
    page = LivePage(
        tuple(folder.absolute() for folder in runs), None if catalog is None else catalog.absolute()
    )
    page.current()  # reports errors now, on the terminal instead of in the browser

    class Handler(PageHandler):
        page_source = page

    try:
        return ThreadingHTTPServer((LOOPBACK_HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"port {port}: cannot be used ({error}). Give another port, or 0 for a free one."
        ) from error


def server_url(server: ThreadingHTTPServer) -> str:
    """Return the address of the page."""
    return f"http://{LOOPBACK_HOST}:{server.server_port}/"


class LivePage:
    """The page of some runs, rendered again only after their files have changed."""

    def __init__(self, runs: Sequence[Path], catalog: Path | None) -> None:
        self._runs, self._catalog = runs, catalog
        self._lock = Lock()
        self._rendered: tuple[str, bytes] | None = None

    def tag(self) -> str:
        """Return an ETag that changes whenever a file of a run changes."""
        states = json.dumps([_file_state(run / name) for run in self._runs for name in RUN_FILES])
        return f'"{hashlib.sha256(states.encode()).hexdigest()[:32]}"'

    def current(self) -> tuple[str, bytes]:
        """Return the ETag and the page.

        Raises:
            UserError: A run or the catalog cannot be read.
        """
        with self._lock:
            tag = self.tag()  # before rendering: a change during rendering counts as new
            if self._rendered is None or self._rendered[0] != tag:
                self._rendered = tag, render(self._runs, self._catalog, live=tag).encode()
            return self._rendered


def _file_state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


class PageHandler(BaseHTTPRequestHandler):
    """Answers GET and HEAD requests for `/` and `/data`. No request can read another file."""

    page_source: LivePage
    timeout = 30  # seconds until a silent connection is closed
    server_version, sys_version = "clustermix", ""

    def do_GET(self) -> None:
        """Answer a GET or HEAD request."""
        if not self._host_is_local():
            text = b"Forbidden: this server only answers to 127.0.0.1 and localhost.\n"
            self._send(403, text, "text/plain")
        elif self.path == "/":
            self._send_page()
        elif self.path == "/data":
            tag = self.page_source.tag()
            if self.headers.get("If-None-Match") == tag:
                self._send(304, b"", "application/json", tag)
            else:
                self._send(200, json.dumps({"tag": tag}).encode(), "application/json", tag)
        else:
            self._send(404, b"Not found: the page is at /.\n", "text/plain")

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def log_message(self, format: str, *args: Any) -> None:
        """Do not log requests: the page polls every few seconds."""

    def _host_is_local(self) -> bool:
        """Return whether the request names this machine, to prevent DNS rebinding."""
        port = cast(ThreadingHTTPServer, self.server).server_port
        names = {f"{name}:{port}" for name in (LOOPBACK_HOST, "localhost")}
        return self.headers.get("Host") in names

    def _send_page(self) -> None:
        try:
            tag, page = self.page_source.current()
            self._send(200, page, HTML_TYPE, tag)
        except UserError as error:
            self._send(503, ERROR_PAGE.format(escape_html(error)).encode(), HTML_TYPE)

    def _send(self, status: int, content: bytes, kind: str, tag: str | None = None) -> None:
        headers = {"Content-Type": kind, "Content-Length": str(len(content))}
        self.send_response(status)
        for name, value in (RESPONSE_HEADERS | headers | ({"ETag": tag} if tag else {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and status != 304:
            self.wfile.write(content)
