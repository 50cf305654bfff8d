"""An S3 server whose objects survive SIGKILL: moto behind a journal on disk.

A request that changes something is answered only after it is in the journal. A new process repeats
the journal. Run it as `python -m tests.scale.store ADDRESS PORT JOURNAL`.
"""

import io
import json
import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wsgi import get_input_stream

CHANGING = {"PUT", "POST", "DELETE"}
KEPT = ("CONTENT_TYPE", "CONTENT_LENGTH", "REQUEST_METHOD", "PATH_INFO", "QUERY_STRING")


class Journaled:
    """A WSGI application that repeats its journal at the start, and adds to it."""

    def __init__(self, application: Any, path: Path) -> None:
        self.application = application
        self.lock = threading.Lock()
        if path.exists():
            self._repeat(path)
        self.journal = path.open("ab")

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in CHANGING:
            return self.application(environ, start_response)  # type: ignore[no-any-return]
        if "uploads" in environ["QUERY_STRING"]:  # its ids would be others after a restart
            start_response("501 Not Implemented", [])
            return [b"no multipart uploads"]
        body = get_input_stream(environ).read()
        answered: list[Any] = []
        with self.lock:  # the order of the journal is that of the changes
            answer = b"".join(self._call(environ, body, lambda *values: answered.extend(values)))
            if answered[0].startswith("2"):
                self._write(environ, body)
        start_response(answered[0], answered[1])
        return [answer]

    def _call(self, environ: dict[str, Any], body: bytes, start_response: Any) -> Iterable[bytes]:
        environ = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        return self.application(environ, start_response)  # type: ignore[no-any-return]

    def _write(self, environ: dict[str, Any], body: bytes) -> None:
        kept = {
            name: value
            for name, value in environ.items()
            if isinstance(value, str) and (name in KEPT or name.startswith(("HTTP_", "SERVER_")))
        }
        head = json.dumps(kept).encode()
        for part in (head, body):
            self.journal.write(len(part).to_bytes(8, "little"))
        self.journal.write(head + body)
        self.journal.flush()
        os.fsync(self.journal.fileno())

    def _repeat(self, path: Path) -> None:
        with path.open("rb") as file:
            whole = 0  # end of the last whole entry
            while len(sizes := file.read(16)) == 16:
                head, body = (int.from_bytes(sizes[i : i + 8], "little") for i in (0, 8))
                entry = file.read(head + body)
                if len(entry) < head + body:
                    break
                environ = {
                    "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.errors": sys.stderr,
                    "wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.run_once": False,
                    "SCRIPT_NAME": "", **json.loads(entry[:head]),
                }  # fmt: skip
                list(self._call(environ, entry[head:], lambda *_: None))
                whole = file.tell()
        os.truncate(path, whole)


def main() -> None:
    address, port, journal = sys.argv[1:]
    application = Journaled(DomainDispatcherApplication(create_backend_app), Path(journal))
    make_server(address, int(port), application, threaded=True).serve_forever()


if __name__ == "__main__":
    main()
