"""A real S3 server in a process of its own, behind a proxy that fails on request."""

import http.client
import math
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import fsspec
import pytest

BUCKET = "corpora"
_SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


class ObjectStore:
    """The faults of a store, and what was asked of it.

    `refused` of every three requests are answered by 503. Every `cut_every`-th answer with a body
    ends early, and every `slow_every`-th answer comes late. All answers wait for `latency_seconds`,
    and their bodies share a link of `bits_per_second`. `requests` has a method, a path and a
    range per request that reached the store.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.refused = 0
        self.cut_every = 0
        self.slow_every = 0
        self.latency_seconds = 0.0
        self.bits_per_second = math.inf
        self.requests: list[tuple[str, str, str | None]] = []
        self.refusals = 0
        self.cuts = 0
        self._seen = 0
        self._link_free = 0.0
        self._lock = threading.Lock()

    def asked(self, method: str) -> list[str]:
        return [path for kind, path, _ in self.requests if kind == method]

    def transfer(self, size: int) -> None:
        """Wait as long as an answer with a body of `size` bytes takes."""
        if not self.latency_seconds:
            return
        with self._lock:
            begin = max(time.perf_counter() + self.latency_seconds, self._link_free)
            self._link_free = begin + 8 * size / self.bits_per_second
            end = self._link_free
        time.sleep(max(end - time.perf_counter(), 0))

    def next_fault(self) -> str:
        with self._lock:
            self._seen += 1
            if self._seen % 3 < self.refused:
                self.refusals += 1
                return "refuse"
            if self.cut_every and self._seen % self.cut_every == 0:
                self.cuts += 1
                return "cut"
            return "slow" if self.slow_every and self._seen % self.slow_every == 0 else ""


@contextmanager
def serving_objects() -> Iterator[ObjectStore]:
    """Yield a store with an empty bucket `BUCKET`. Its address and keys are in the environment."""
    pytest.importorskip("moto.server", reason="moto's server is not installed")
    pytest.importorskip("s3fs")
    with _server() as port, _proxy(port) as store, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": store.url,
        }.items():
            patch.setenv(name, value)
        system = fsspec.filesystem("s3", skip_instance_cache=True)
        system.mkdir(BUCKET)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield store
        fsspec.get_filesystem_class("s3").clear_instance_cache()


@contextmanager
def _server() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(3000):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "moto's server ended"
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _proxy(port: int) -> Iterator[ObjectStore]:
    store = ObjectStore("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:  # the client hung up
                self.close_connection = True

        def forward(self) -> None:
            body = self._body()
            fault = store.next_fault()
            if fault == "refuse":
                self._answer(503, "Slow Down", {"Content-Type": "application/xml"}, _SLOW_DOWN)
                return
            store.requests.append((self.command, self.path, self.headers.get("range")))
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "transfer-encoding"}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            if fault == "slow":
                time.sleep(0.5)
            store.transfer(len(content))
            kept = {
                name: value
                for name, value in answer.getheaders()
                if name.lower() not in {"connection", "transfer-encoding"}
            }
            cut = fault == "cut" and self.command == "GET" and len(content) > 1
            self._answer(
                answer.status, answer.reason, kept, content[: len(content) // 2] if cut else content
            )
            if cut:
                self.close_connection = True

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                pieces = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    pieces.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(pieces)
            return self.rfile.read(int(self.headers.get("content-length", 0)))

        def _answer(self, status: int, reason: str, headers: dict[str, str], body: bytes) -> None:
            self.send_response_only(status, reason)
            for name, value in headers.items():
                if name.lower() != "content-length":
                    self.send_header(name, value)
            stated = headers.get("Content-Length", headers.get("content-length", str(len(body))))
            self.send_header("Content-Length", stated)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    store.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
