"""Manifests that were made to mislead, in every command that reads a catalog."""

import json
import shutil

import pytest

from tests.helpers.commands import run_command
from tests.helpers.environments import TRAIN
from tests.helpers.faults import Lost, Wrong

pytestmark = pytest.mark.faults(
    "Hostile manifests",
    tried=(
        "Manifests with missing keys, nulls, other types, numbers out of range, paths outside the "
        "catalog, links, deep nesting, other fingerprints and broken JSON, in `query`, `domains`, "
        "`verify`, `report`, `rebuild` and `train`."
    ),
    expected=(
        "Exit code 2 and one sentence that names the manifest or the file. No file outside the "
        "catalog is read or written."
    ),
)

OUTSIDE = {"bytes": 9, "sha256": "0" * 64}


def without(key):
    return lambda tree: {name: value for name, value in tree.items() if name != key}


def with_(key, value):
    return lambda tree: {**tree, key: value}


def with_file(name, entry=None):
    return lambda tree: {**tree, "files": {**tree["files"], name: entry or OUTSIDE}}


def text(content):
    return lambda tree: content


KEYS = ("format", "version", "fingerprint", "granularities", "documents", "tokens", "encoder")
MORE_KEYS = ("tokenizer", "targets", "files", "config", "built_from", "additions", "warnings")
MANIFESTS = {
    **{f"without {key}": without(key) for key in (*KEYS, *MORE_KEYS)},
    **{f"{key} null": with_(key, None) for key in (*KEYS, *MORE_KEYS)},
    "fingerprint number": with_("fingerprint", 7),
    "fingerprint empty": with_("fingerprint", ""),
    "left_out text": with_("left_out", "documents"),
    "left_out unknown": with_("left_out", ["everything"]),
    "granularities text": with_("granularities", "64"),
    "granularities empty": with_("granularities", []),
    "granularities odd": with_("granularities", [3, 7]),
    "granularities huge": with_("granularities", [2, 10**40]),
    "documents negative": with_("documents", -1),
    "documents text": with_("documents", "many"),
    "documents NaN": lambda tree: json.dumps(tree).replace('"documents": 160', '"documents": NaN'),
    "version zero": with_("version", 0),
    "version huge": with_("version", 10**30),
    "version path": with_("version", "../../1"),
    "format new": with_("format", 3),
    "unknown key": with_("run", "rm -rf /"),
    "targets path": with_("targets", ["../../secret"]),
    "targets nul": with_("targets", ["a\0b"]),
    "files list": with_("files", ["documents/a.parquet"]),
    "file outside": with_file("documents/../../secret.parquet"),
    "file absolute": with_file("/etc/passwd"),
    "file nul": with_file("documents/\0.parquet"),
    "file windows": with_file("documents\\..\\secret.parquet"),
    "file unlisted folder": with_file("secrets/part.parquet"),
    "file missing": with_file("documents/top=0009/part-0000.parquet"),
    "file link": with_file("documents/top=0000/linked.parquet"),
    "file manifest": with_file("versions/0001/catalog.json"),
    "file size text": with_file("tree/x", {"bytes": "9", "sha256": "0" * 64}),
    "file sha short": with_file("tree/x", {"bytes": 9, "sha256": "0"}),
    "nested": text("[" * 100_000 + "]" * 100_000),
    "not JSON": text("{" * 10),
    "empty": text(""),
    "list": text("[]"),
    "not UTF-8": text("\udcff\udcfe"),
}
COMMANDS = ("query", "domains", "verify", "report", "rebuild", "train")


@pytest.fixture(scope="module")
def place(built, tmp_path_factory):
    """A folder with a secret file, and a copy of the catalog in a folder beside it."""
    folder = tmp_path_factory.mktemp("hostile")
    shutil.copytree(built[0], folder / "catalog", ignore=shutil.ignore_patterns("work"))
    shutil.copy(folder / "catalog/documents/top=0000/part-0000.parquet", folder / "secret.parquet")
    (folder / "catalog/documents/top=0000/linked.parquet").symlink_to(folder / "secret.parquet")
    (folder / "train.toml").write_text(TRAIN.format(folder=folder))
    return folder


def outside(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.iterdir()
        if path.is_file()
    }


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest(place, name, command):
    root, manifest = place / "catalog", place / "catalog" / "catalog.json"
    kept, before = manifest.read_bytes(), outside(place)
    content = MANIFESTS[name](json.loads(kept))
    content = content if isinstance(content, str) else json.dumps(content)
    manifest.write_bytes(content.encode(errors="surrogateescape"))
    words = {
        "query": ("query", root, "SELECT count(*) FROM documents"),
        "domains": ("domains", root),
        "verify": ("verify", root),
        "report": ("report", root, "--out", place / "page.html"),
        "rebuild": ("rebuild", root),
        "train": ("train", place / "train.toml"),
    }[command]
    try:
        ended = run_command(*words)
    finally:
        manifest.write_bytes(kept)
        (place / "page.html").unlink(missing_ok=True)
        shutil.rmtree(place / "unused", ignore_errors=True)
    if outside(place) != before:
        raise Lost(f"{name}: a file outside the catalog has changed")
    output = ended.output
    if ended.code == 0 and command == "train" and name in {"file missing", "file link"}:
        return  # no training reads documents
    if ended.code == 0:
        raise Wrong(f"{name}: {command} accepts the manifest: {output}")
    assert "Traceback" not in output, output
    assert "failed:" not in output, output
    if command == "verify" and ended.code == 1:
        return
    assert ended.code == 2, output
    sentences = [line for line in output.splitlines() if line.startswith("clustermix: ")]
    assert len(sentences) == 1, output
    assert "catalog" in sentences[0], output
