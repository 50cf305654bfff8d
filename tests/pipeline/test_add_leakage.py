"""The leakage of targets after an addition: earlier and new documents, earlier and new targets."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import data_catalog
from data_catalog.format.layout import Layout
from data_catalog.format.manifest import read_manifest, write_json
from data_catalog.settings import parse
from data_catalog.verify import check
from pipeline.add import add
from pipeline.config import Addition
from tests.helpers.passages import passage


def in_corpus(root: Path, version: int | None = None) -> dict[tuple[str, str], float]:
    rows = data_catalog.open(root, version).sql("SELECT name, doc_id, in_corpus FROM leakage")
    return {(name, doc_id): share for name, doc_id, share in rows.fetchall()}


def write_lines(path: Path, texts: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"id": name, "text": text}) for name, text in texts.items()]
    path.write_text("\n".join(lines) + "\n")


def remove_leakage(root: Path) -> None:
    """Make a catalog one that an older version of clustermix wrote."""
    layout, content = Layout(root), read_manifest(root).content()
    del content["files"]["versions/0001/leakage.parquet"]
    for place in (layout.version_manifest, layout.manifest):
        write_json(place, content)
    layout.leakage.unlink()


@pytest.fixture(params=["with", "without"])
def root(built, tmp_path, request):
    """A copy of a catalog, with its table of leakage and without."""
    root = tmp_path / "catalog"
    shutil.copytree(built[0], root, ignore=shutil.ignore_patterns("work"))
    if request.param == "without":
        remove_leakage(root)
    return root


def test_the_table_does_not_change_the_fingerprint(root, built):
    assert check(root).faults == ()
    assert read_manifest(root).fingerprint == read_manifest(built[0]).fingerprint


def test_all_documents_and_all_targets_are_compared(root, built, tmp_path):
    before = in_corpus(built[0])
    assert 0 < max(before.values()) < 0.5
    target = pq.read_table(Layout(root).target("space") / "documents.parquet").to_pylist()
    leaked = next(row for row in target if row["split"] == "test")
    catalog = data_catalog.open(root)
    [(stored,)] = catalog.sql("SELECT text FROM documents WHERE split = 'train' LIMIT 1").fetchall()
    long = passage("long", 60)
    more = {f"m{i}": f"{passage(f'm{i}w', 20)} {leaked['text']} {long} {i}" for i in range(3)}
    write_lines(tmp_path / "more" / "a.jsonl", more)
    questions = {f"q{i}": passage(f"q{i}w", 30) for i in range(40)}
    write_lines(tmp_path / "quiz" / "train.jsonl", questions)
    tests = {"old": f"Read this. {stored}", "new": f"{long} {passage('e', 40)}", "no": "Why?"}
    write_lines(tmp_path / "quiz" / "test.jsonl", tests)
    addition = {
        "source": {"kind": "jsonl", "path": str(tmp_path / "more")},
        "targets": [{"name": "quiz", "path": str(tmp_path / "quiz")}],
    }
    add(root, parse(Addition, addition, "test"))
    assert check(root).faults == ()
    after = in_corpus(root)
    assert after.pop(("space", leaked["doc_id"])) == 1
    quiz = {doc_id: after.pop(("quiz", doc_id)) for doc_id in (*tests, *questions)}
    assert quiz["old"] > 0.5
    assert quiz["new"] == 48 / 88
    assert {quiz[name] for name in ("no", *questions)} == {0}
    del before[("space", leaked["doc_id"])]
    assert after == before
    warnings = read_manifest(root).warnings
    assert any(text.startswith("target space: for 1 of its 10 test documents") for text in warnings)
    assert any(text.startswith("target quiz: for 2 of its 3 test documents") for text in warnings)
    count = len(warnings)
    write_lines(tmp_path / "third" / "a.jsonl", {"x": passage("third", 50)})
    source = {"kind": "jsonl", "path": str(tmp_path / "third")}
    add(root, parse(Addition, {"source": source}, "test"))
    assert in_corpus(root) == in_corpus(root, 2)
    assert len(read_manifest(root).warnings) == count  # said before
