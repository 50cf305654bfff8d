"""The store that the machines share, the corpus in it, and the config of the build."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from time import sleep
from typing import Any

import fsspec

from tests.helpers.repository import ROOT
from tests.helpers.tiny_corpus import write_corpus
from tests.scale.machines import HOST, wait_until

PORT = 9000
BUCKET, OUT = "scale", "s3://scale/catalogs/tiny"
PARTS = 24  # source files, so that stages take some seconds


class Store:
    """The server of objects. What it has answered survives its end."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.scale.store", HOST, str(PORT), str(self.journal)]
        with self.journal.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        wait_until(self._answers, 120, "the store does not answer")

    def _answers(self) -> bool:
        try:
            socket.create_connection((HOST, PORT), 1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Kill the server, and start it two seconds later."""
        self.kill()
        sleep(2)
        self.start()


def upload_corpus(folder: Path) -> dict[str, Any]:
    """Put a corpus of `PARTS` files into the store. Return the config of its build."""
    config = write_corpus(folder, documents=40 * PARTS)
    lines = [
        line
        for path in sorted((folder / "corpus").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    system = fsspec.filesystem("s3")
    system.mkdir(BUCKET)
    for part in range(PARTS):
        text = "\n".join(lines[part::PARTS]) + "\n"
        system.pipe_file(f"{BUCKET}/corpus/part-{part:02d}.jsonl", text.encode())
    for path in (folder / "target").rglob("*"):
        if path.is_file():
            system.put_file(str(path), f"{BUCKET}/{path.relative_to(folder)}")
    targets = [{**config["targets"][0], "path": f"s3://{BUCKET}/target"}]
    source = {**config["source"], "path": f"s3://{BUCKET}/corpus"}
    return {**config, "source": source, "targets": targets}


def toml(value: Any) -> str:
    """Return a value in TOML. That of a string or a list of numbers is as in JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def document(config: dict[str, Any]) -> str:
    return "\n".join(f"{key} = {toml(value)}" for key, value in config.items())


def plain_loop(config: dict[str, Any], folder: Path) -> None:
    """Build a catalog in a plain loop, in a process of its own. `folder` gets its config."""
    path = folder / "plain.toml"
    path.write_text(document(config), encoding="utf-8")
    script = (
        "import sys; from pathlib import Path; from data_catalog.settings import load; "
        "from pipeline.config import Build; from pipeline.run import build; "
        "build(load(Build, Path(sys.argv[1])))"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, cwd=ROOT)
    return Path(config["out"])
