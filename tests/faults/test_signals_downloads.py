"""Signals during `fetch`: while it imports, waits for a server, receives a file and writes one."""

import gzip
import json
import re

import pytest

from data_catalog.format.manifest import read_manifest
from data_catalog.verify import check
from tests.helpers.commands import run_command
from tests.helpers.failing_server import serving
from tests.helpers.faults import Lost, Wrong
from tests.helpers.interrupted import (
    COMMAND,
    CTRL_C,
    GROUP_INT,
    GROUP_TERM,
    SIGNALS,
    Running,
    exists,
    imports,
    unfinished,
)

pytestmark = SIGNALS
LISTING = "listings/en-2023-06-head_middle.txt"
DOCUMENTS = "documents/2023-06/0000/en_head.json.gz"
COPIES = "duplicates/2023-06/0000/en_head.duplicates.parquet"


def interrupt(words, folder, way, point):
    """Run a command until a point, and interrupt it there."""
    running = Running([*COMMAND, *map(str, words)], folder, way.terminal, folder)
    running.wait_for(point)
    running.interrupt(way)


def repeat(words):
    ended = run_command(*words)
    assert ended.code == 0, ended.output
    return ended.output


@pytest.mark.parametrize(
    ("way", "path", "fault"),
    [
        (CTRL_C, None, None),
        (GROUP_TERM, LISTING, "slow 3"),
        (GROUP_INT, DOCUMENTS, "slow 100"),
        (CTRL_C, DOCUMENTS, "slow 100"),
        (GROUP_TERM, DOCUMENTS, "429 60"),
    ],
    ids=["imports", "listing", "file", "file-terminal", "pause"],
)
def test_fetch_rpv2(tmp_path, way, path, fault):
    root = tmp_path / "rpv2"
    with serving() as server:
        lines = "".join(json.dumps({"raw_content": f"text {i}"}) + "\n" for i in range(400))
        server.files[LISTING] = b"2023-06/0000/en_head\n"
        server.files[DOCUMENTS] = gzip.compress(lines.encode())
        server.files[COPIES] = b"no footer"
        if path:
            server.faults[path] = [fault]
        words = ("fetch", "rpv2", root, "--snapshot", "2023-06", "--lang", "en")
        words = (*words, "--base-url", server.url)
        points = {
            None: imports(0.4),
            "slow 100": lambda _: any(part.stat().st_size for part in root.rglob("*.part")),
        }
        asked = points.get(fault, lambda _: path in server.asked("GET"))
        interrupt(words, tmp_path, way, asked)
        server.go.set()
        assert not unfinished(tmp_path)
        server.requests.clear()
        repeat(words)
        again = [sent[2] for sent in server.requests if sent[:2] == ("GET", DOCUMENTS)]
        # All of the 100 bytes were sent, and at least some were received.
        if fault == "slow 100" and not any(
            re.fullmatch(r"bytes=[1-9]\d*-", b or "") for b in again
        ):
            raise Lost("the received bytes are requested again")
        for name, body in server.files.items():
            if (root / name).read_bytes() != body:
                raise Wrong(f"{name} is not what the server sent")
    assert not list(root.rglob("*.part"))


@pytest.mark.parametrize("way", [CTRL_C, GROUP_TERM], ids=str)
def test_fetch_catalog(built, tmp_path, way):
    root = tmp_path / "catalog"
    with serving() as server:
        for path in built[0].rglob("*"):
            name = path.relative_to(built[0]).as_posix()
            if path.is_file() and not name.startswith("work"):
                server.files[name] = path.read_bytes()
        [slow] = [name for name in server.files if name.endswith("domains.parquet")]
        server.faults[slow] = ["slow 100"]
        words = ("fetch", "catalog", server.url, root)
        interrupt(words, tmp_path, way, lambda _: slow in server.asked("GET"))
        server.go.set()
        assert not (root / "catalog.json").exists()
        repeat(words)
    if read_manifest(root).fingerprint != read_manifest(built[0]).fingerprint:
        raise Wrong("another catalog than the server's")
    assert not check(root).faults
    assert not unfinished(root)


@pytest.mark.parametrize("way", [GROUP_INT], ids=str)
def test_fetch_dataset(tmp_path, way):
    (tmp_path / "there").mkdir()
    rows = "".join(json.dumps({"text": f"number {i}"}) + "\n" for i in range(3000))
    (tmp_path / "there" / "train.jsonl").write_text(rows)
    root = tmp_path / "here"
    words = ("fetch", "dataset", root, tmp_path / "there", "--rows-per-piece", 10)
    interrupt(words, tmp_path, way, exists(root / "part-00010.parquet"))
    assert not unfinished(root)
    written = {path: path.read_bytes() for path in root.glob("part-*.parquet")}
    assert len(written) < 300
    if "3,000 rows in 300 files" not in (output := repeat(words)):
        raise Wrong(output)
    if any(path.read_bytes() != data for path, data in written.items()):
        raise Lost("a finished file was written again")
