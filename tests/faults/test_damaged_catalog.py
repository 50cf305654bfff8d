"""Damaged files of a catalog, in commands that read it."""

import hashlib
import shutil

import pytest

from tests.helpers.commands import Ended, run_command
from tests.helpers.damage import DAMAGES, damaged, judge
from tests.helpers.environments import TRAIN

pytestmark = pytest.mark.faults(
    "Damaged catalogs",
    tried=(
        "Each kind of file of a catalog, missing, empty, cut in half, with a flipped bit or "
        "replaced by another file, in `query`, `domains`, `report`, `verify`, `export documents`, "
        "`add` and a training."
    ),
    expected=(
        "The command ends with exit code 2 and a sentence that names the file and `clustermix "
        "verify`, or does not need the file and gives the same result as before. `verify` names "
        "the file and ends with exit code 1."
    ),
)

TOP = "documents/top=0001/part-0000.parquet"
FILES = (
    *("catalog.json", "catalog.duckdb", "catalog.sql", TOP, "tokens/top=0001/part-0000.arrow"),
    *("signals/0001-part-0.parquet", "verdicts/0001-part-1.parquet"),
    *("tree/centroids.npz", "tree/tree.json"),
    *("tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"),
    *(f"targets/space/{name}" for name in ("documents.parquet", "target.json", "tokens.arrow")),
    "versions/0001/catalog.json",
    *(
        f"versions/0001/{name}.parquet"
        for name in ("accounting", "distributions", "domains", "examples", "health", "offsets")
    ),
    *(f"versions/0001/{name}.parquet" for name in ("quarantine", "removed", "targets")),
)
VIEWS = {"documents", "signals", "verdicts"}


@pytest.fixture(scope="module")
def place(built, tmp_path_factory):
    """A folder with a copy of the catalog, a config of a training and one of an addition."""
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(built[0], folder / "catalog", ignore=shutil.ignore_patterns("work"))
    (folder / "train.toml").write_text(TRAIN.format(folder=folder))
    (folder / "more").mkdir()
    (folder / "more" / "new.jsonl").write_text('{"id": "new", "text": "A new text on boats."}\n')
    (folder / "add.json").write_text(f'{{"source": {{"kind": "jsonl", "path": "{folder}/more"}}}}')
    return folder


@pytest.fixture(scope="module")
def sound(place):
    """Each command and its result without damage, by command and view."""
    known = {}

    def find(command, view):
        key = (command, view if command == "query" else "")
        if key not in known:
            known[key] = run(place, command, view)
            assert known[key][0].code == 0, known[key][0].output
        return known[key]

    return find


def run(place, command, view) -> tuple[Ended, str]:
    """Run a command. Return how it ended, and what it answered or wrote."""
    root, out = place / "catalog", place / "out"
    words = {
        "query": ("query", root, f"SELECT * FROM {view} ORDER BY ALL", "--json"),
        "domains": ("domains", root, "--level", "4", "--domain", "1", "--json"),
        "report": ("report", root, "--out", out),
        "verify": ("verify", root),
        "export": ("export", "documents", root, out),
        "add": ("add", place / "grown", place / "add.json"),
        "train": ("train", place / "train.toml"),
    }[command]
    written = {
        "report": out,
        "export": out / "data" / "shard_00000.jsonl",
        "add": place / "grown" / "catalog.json",
        "train": place / "unused" / "model" / "model.safetensors",
    }
    if command == "add":
        shutil.copytree(root, place / "grown")
    try:
        ended = run_command(*words)
        result = ended.output
        if ended.code == 0 and command in written:
            result = hashlib.sha256(written[command].read_bytes()).hexdigest()
        if ended.code == 0 and command == "add":
            result = str(result != "")  # stage times differ
    finally:
        for folder in (out, place / "unused", place / "grown"):
            if folder.is_dir():
                shutil.rmtree(folder)
            else:
                folder.unlink(missing_ok=True)
    return ended, result


@pytest.mark.parametrize("command", ["query", "domains", "report", "verify", "train"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file(place, sound, name, damage, command):
    path = place / "catalog" / name
    folder, view = path.relative_to(place / "catalog").parts[0], path.stem
    if folder in VIEWS:
        view = folder
    elif folder != "versions" or view == "catalog":
        view = "domains"
    expected = sound(command, view)
    with damaged(path, damage):
        ended, result = run(place, command, view)
    judge(ended, result, expected, path, (1, 2) if command == "verify" else (2,))
    if command == "verify" and (name, damage) != ("catalog.sql", "missing"):
        assert ended.code != 0, ended.output


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("add", TOP),
        ("add", "tree/centroids.npz"),
        ("add", "versions/0001/accounting.parquet"),
        ("export", TOP),
        ("export", "versions/0001/offsets.parquet"),
    ],
)
def test_a_damaged_file_that_is_copied_or_grown(place, sound, command, name, damage):
    expected = sound(command, "")
    with damaged(place / "catalog" / name, damage):
        ended, result = run(place, command, "")
    judge(ended, result, expected, place / "catalog" / name)
    assert ended.code == 2, ended.output
