"""Build a corpus with bad records, and compare the catalog with what was planted."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import data_catalog
from data_catalog.format.layout import Layout
from data_catalog.format.tokens import map_tokens
from data_catalog.settings import parse
from data_catalog.verify import check
from flows.cli.summary import print_build
from pipeline.config import Build
from pipeline.run import build
from pipeline.shard.tokenize import load_tokenizer
from tests.helpers.faults import Lost, Wrong
from tests.helpers.tiny_corpus import SUBJECTS, sentences

BAD_RECORDS = pytest.mark.faults(
    "Bad records",
    tried="A record among good ones that the source cannot read, whose quality signals or near "
    "copies are odd, that the encoder gives no vector for, or that the tokenizer refuses or gives "
    "no tokens for, in a corpus, an addition and a target.",
    expected="The build ends, every good document is stored with its tokens, the bad one is in the "
    "accounts and in the quarantine with its reason, and `verify` finds no fault.",
)
Documents = list[tuple[str, str]]  # id and text of each


@dataclass(frozen=True)
class Planted:
    """The expected contents of a catalog after a build or an addition."""

    documents: Documents
    """Documents of the corpus that can be used."""
    target: Documents
    """Documents of the target that can be used."""
    lost: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Number of documents that cannot be used, by stage and reason."""
    noted: Mapping[str, int] = field(default_factory=dict)
    """Number of notes of the stage source by reason."""
    droppable: Collection[str] = ()
    """Ids of documents that rules and tiers may drop."""
    warned: tuple[str, ...] = ()
    """Beginnings of the manifest's warnings."""


def records(documents: Documents) -> bytes:
    return b"".join(
        json.dumps({"id": name, "text": text}).encode() + b"\n" for name, text in documents
    )


def good_documents(count: int, first: int = 0) -> Documents:
    subjects = list(SUBJECTS.values())
    return [(f"doc-{i}", sentences(subjects[i % 4], i)) for i in range(first, first + count)]


GOOD = good_documents(40)
TARGET = good_documents(12, first=1000)
WORDS = sorted({word for _, text in (*GOOD, *TARGET) for word in re.findall(r"\w+|[.,]", text)})


def write_good(folder: Path, encoder: Path) -> dict[str, Any]:
    """Write 40 documents, and a target of 12. Return the config of a build."""
    (folder / "corpus").mkdir(parents=True)
    (folder / "target").mkdir()
    (folder / "corpus" / "a.jsonl").write_bytes(records(GOOD))
    (folder / "target" / "t.jsonl").write_bytes(records(TARGET))
    return {
        "out": str(folder / "catalog"),
        "source": {"kind": "jsonl", "path": str(folder / "corpus")},
        "embed": {"model": str(encoder), "max_tokens": 32, "precision": "float32"},
        "cluster": {"granularities": [2, 4], "min_points": 4, "workers": 1},
        "tokenizer": {"vocabulary": 300},
        "held_out_share": 0.1,
        "targets": [{"name": "space", "path": str(folder / "target")}],
    }


def plant(file: Path, bad: bytes) -> None:
    """Insert records in the middle of a file of JSON lines."""
    lines = file.read_bytes().splitlines(keepends=True)
    half = len(lines) // 2
    file.write_bytes(b"".join([*lines[:half], bad, *lines[half:]]))


def build_and_check(settings: Mapping[str, Any], planted: Planted) -> Path:
    """Build, check the catalog with `check_catalog` and return its folder."""
    root = build(parse(Build, dict(settings), "test"))
    check_catalog(root, planted)
    return root


def check_catalog(root: Path, planted: Planted) -> None:
    """Compare a catalog with what was planted.

    Raises:
        Lost: A document is missing, and no reason counts it.
        Wrong: A text or its tokens differ, a reason or its number is not the expected one, or
            `verify` finds a fault.
    """
    catalog = data_catalog.open(root)
    layout = catalog.files.layout
    stored = catalog.sql("SELECT doc_id, text FROM documents").fetchall()
    rows = catalog.sql(
        "SELECT stage, outcome, reason, rows FROM accounting WHERE reason IS NOT NULL"
    ).fetchall()
    dropped = sum(number for _, how, _, number in rows if how == "dropped")
    missing = _missing("documents", planted.documents, stored)
    if missing.total() != dropped or {name for name, _ in missing} - {*planted.droppable}:
        raise Lost(f"documents: {dropped} dropped, but missing {[name for name, _ in missing]}")
    target = pq.read_table(layout.target("space") / "documents.parquet")
    stored = zip(target["doc_id"].to_pylist(), target["text"].to_pylist(), strict=True)
    if missing := _missing("target", planted.target, stored):
        raise Lost(f"target: missing {[name for name, _ in missing]}")

    counted = {(stage, why): number for stage, how, why, number in rows if how == "failed"}
    noted = {why: number for _, how, why, number in rows if how == "noted"}
    of_corpus = {key: number for key, number in planted.lost.items() if key[0] != "targets"}
    if counted != of_corpus or noted != planted.noted:
        raise Wrong(f"counted {counted} and {noted}, expected {of_corpus} and {planted.noted}")
    listed = Counter(catalog.sql("SELECT stage, reason FROM quarantine").fetchall())
    expected = Counter(planted.lost) + Counter(("source", why) for why in planted.noted)
    if listed != expected:
        raise Wrong(f"quarantine {listed}, expected {expected}")
    warnings = catalog.manifest.warnings
    if [w for w in warnings if not w.startswith(planted.warned or "-")] or len(warnings) != len(
        planted.warned
    ):
        raise Wrong(f"warnings {warnings}, expected {planted.warned}")
    if faults := check(root).faults:
        raise Wrong(str(faults))
    _check_tokens(layout)
    print_build(root)


def _missing(
    name: str, planted: Documents, stored: Iterable[tuple[str, str]]
) -> Counter[tuple[str, str]]:
    found = Counter(stored)
    if added := found - Counter(planted):
        raise Wrong(f"{name}: not planted {[(key, text[:50]) for key, text in added]}")
    return Counter(planted) - found


def _check_tokens(layout: Layout) -> None:
    """Check that the tokens of each document are those of its text, and end."""
    fast, end = load_tokenizer(layout.tokenizer / "tokenizer.json")
    for file in sorted(layout.root.glob("documents/top=*/*.parquet")):
        texts = pq.read_table(file, columns=["text"])["text"].to_pylist()
        ids, starts = map_tokens(
            layout.root / "tokens" / file.parent.name / file.with_suffix(".arrow").name
        )
        for i, text in enumerate(texts):
            expected = [*fast.encode(text, add_special_tokens=False).ids, end]
            if ids[starts[i] : starts[i + 1]].tolist() != expected:
                raise Wrong(f"{file}: row {i} has other tokens than its text")
