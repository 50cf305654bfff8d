"""A local HTTP server that serves bytes from memory and fails on request."""

import hashlib
import re
import threading
from collections import defaultdict
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FailingServer:
    """Files by path without a leading slash, and the faults of their requests.

    Each GET uses the next fault of `faults[path]`, and each HEAD one of `head_faults[path]`. The
    faults are:

    * a status such as "503",
    * "429 SECONDS": with the header Retry-After,
    * "cut N": the connection closes after N bytes,
    * "less N": Content-Length and body are N bytes,
    * "slow N": N bytes at once, and the rest when `go` is set.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.head_faults: dict[str, list[str]] = defaultdict(list)
        self.redirects: dict[str, dict[str, str]] = {}  # headers of the answer, Location among them
        self.ranges = True
        self.etags = True
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, Range
        self.url = ""
        self.go = threading.Event()

    def asked(self, method: str) -> list[str]:
        return [path for kind, path, _ in self.requests if kind == method]


@contextmanager
def serving():
    server = FailingServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(server.head_faults)

        def do_GET(self) -> None:
            self.answer(server.faults)

        def answer(self, faults: dict[str, list[str]]) -> None:
            path = self.path.lstrip("/")
            server.requests.append((self.command, path, self.headers.get("range")))
            if path in server.redirects:
                self.send_response(302)
                for name, value in {**server.redirects[path], "Content-Length": "0"}.items():
                    self.send_header(name, value)
                self.end_headers()
                return
            fault, _, number = (faults[path].pop(0) if faults[path] else "").partition(" ")
            body = server.files.get(path)
            if fault.isdecimal() or body is None:
                self.send_response(int(fault or 404))
                if number:
                    self.send_header("Retry-After", number)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            etag = '"' + hashlib.sha256(body).hexdigest()[:16] + '"'
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
            start = (
                int(asked[1])
                if asked and server.ranges and self.headers.get("if-range", etag) == etag
                else 0
            )
            if start >= len(body) > 0:
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if server.etags:
                self.send_header("ETag", etag)
            sent = body[start:]
            if fault == "less":
                sent = sent[: int(number)]
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if fault in {"cut", "slow"}:
                self.wfile.write(sent[: int(number)])
                self.wfile.flush()
                if fault == "slow":
                    server.go.wait(20)
                self.close_connection = True
                return
            self.wfile.write(sent)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.go.set()
        http.shutdown()
        http.server_close()
        thread.join()
