"""A run's model reaches a stand-in of the hub, or a sentence says why it does not.

The stand-in answers the requests of huggingface_hub's own client for files that are not large.
"""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from data_catalog import UserError
from data_catalog.format.run_files import write_run_checksums
from data_catalog.transfer.push_model import push_model
from tests.helpers.tiny_run import write_catalog, write_run


class Hub(ThreadingHTTPServer):
    """A hub with repositories as dictionaries of files."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.refuses = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        hub, path = self.server, self.path.partition("?")[0]
        if hub.refuses:
            self._answer(403, {"error": "no rights"})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'user'}/{asked['name']}"
            hub.repositories.setdefault(name, {})
            if asked.get("private") or asked.get("visibility") == "private":
                hub.private.add(name)
            self._answer(200, {"url": f"{hub.url}/{name}", "name": name})
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._answer(200, {"files": files})
        elif "/commit/" in path:
            name = path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in body.splitlines():
                one = json.loads(line)
                if one["key"] == "file":
                    content = base64.b64decode(one["value"]["content"])
                    hub.repositories[name][one["value"]["path"]] = content
            url = f"{hub.url}/{name}/commit/abc"
            self._answer(200, {"commitUrl": url, "commitOid": "abc", "success": True})
        else:
            self._answer(404, {"error": path})

    def do_GET(self) -> None:
        self._answer(200, {"sha": "abc", "id": "user/name", "siblings": []})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        # read when huggingface_hub is imported, which may be long ago
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    catalog = write_catalog(tmp_path / "catalog", [40, 20, 40, 160], [["a"], ["b"], ["c"], ["d"]])
    folder = write_run(tmp_path / "run", catalog=catalog)
    (folder / "model").mkdir()
    (folder / "model" / "README.md").write_text("---\ntags: [clustermix]\n---\n# A model\n")
    (folder / "model" / "config.json").write_text("{}")
    write_run_checksums(folder)
    return folder


def test_the_model_and_its_card_are_uploaded(hub: Hub, run: Path) -> None:
    address = push_model(run, "user/name", private=True)
    assert address == f"{hub.url}/user/name/commit/abc"
    assert hub.repositories == {
        "user/name": {
            "README.md": (run / "model" / "README.md").read_bytes(),
            "config.json": b"{}",
        }
    }
    assert hub.private == {"user/name"}


def test_a_refusal_is_a_sentence(hub: Hub, run: Path) -> None:
    hub.refuses = True
    with pytest.raises(UserError, match=r"repository user/name: .*403"):
        push_model(run, "user/name")


def test_no_hub_is_a_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with pytest.raises(UserError, match="repository user/name"):
        push_model(run, "user/name")


def test_a_wrong_name_is_refused_before_anything_is_sent(hub: Hub, run: Path) -> None:
    with pytest.raises(UserError, match="repository a/b/c"):
        push_model(run, "a/b/c")
    assert hub.repositories == {}


def test_a_damaged_model_is_not_uploaded(hub: Hub, run: Path) -> None:
    (run / "model" / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"config\.json"):
        push_model(run, "user/name")
    assert hub.repositories == {}


def test_an_unfinished_run_is_refused(hub: Hub, run: Path) -> None:
    (run / "model" / "README.md").unlink()
    with pytest.raises(UserError, match="finished"):
        push_model(run, "user/name")
