"""The script for GPUs, run on the processor."""

import json
import os
import subprocess
import sys
from argparse import Namespace

import pytest

from benchmarks.gpu import kmeans, tree
from benchmarks.gpu.__main__ import PARTS, run_all
from benchmarks.gpu.rows import Part, append, read_rows, table
from tests.helpers.repository import ROOT


def part(name, folder, scale="cpu"):
    return Part(name, scale, folder / "gpu.jsonl", "now", 100.0, folder)


def test_the_parts_share_the_time():
    assert sum(PARTS.values()) == pytest.approx(1)


def test_a_table_has_the_rows_of_one_run(tmp_path):
    file = tmp_path / "gpu.jsonl"
    append(file, "before", "tree", "grow", "", {"s": 1.0})
    part("tree", tmp_path).record("grow", "a | b", vectors_per_s=12_345.6, share_of_all=0.5, k=2)
    assert table(read_rows(file, "now")).splitlines()[2:] == [
        "| tree | grow | 12,346 vectors/s, share of all 50.0%, k 2 | a / b |"
    ]


def test_kmeans_of_every_backend_has_a_row(tmp_path, monkeypatch):
    sizes = kmeans.Sizes(600, 20, (4, 16), 2, 50, 100)
    monkeypatch.setitem(kmeans.SIZES, "cpu", sizes)
    kmeans.run(part("kmeans", tmp_path))
    rows = {row["measured"]: row for row in read_rows(tmp_path / "gpu.jsonl", "now")}
    for k in (4, 16):
        inertias = [
            rows[f"k = {k}, {backend} on cpu"]["values"]["inertia"]
            for backend in ("torch", "faiss")
        ]
        assert inertias[0] == pytest.approx(inertias[1], rel=0.02)
    assert "not measured" in rows["flash"]["note"]


def test_a_tree_has_a_row_for_each_step(tmp_path, monkeypatch):
    monkeypatch.setitem(tree.TREES, "cpu", (tree.Tree(2_000, 50, (4, 16), 500),))
    tree.run(part("tree", tmp_path))
    rows = read_rows(tmp_path / "gpu.jsonl", "now")
    assert [row["measured"].split(": ")[1] for row in rows] == [
        "grow",
        "polish",
        "radii",
        "assign all",
        "all steps",
    ]
    assert rows[-1]["values"]["share of nearest leaves found"] > 0.9


def test_a_failed_part_has_its_error_in_the_table(tmp_path):
    given = Namespace(
        parts=["embedding"],
        seconds=250.0,
        out=tmp_path / "gpu.md",
        encoder=tmp_path / "nowhere",
        device="cpu",
        scale="cpu",
        scratch=None,
    )
    (tmp_path / "nowhere").mkdir()
    text = run_all(given, "A device.")
    assert "| embedding | FAILED |  | exit code 1: " in text
    assert "nowhere has no model.safetensors" in text


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_whole_script_on_the_processor(tmp_path):
    out = tmp_path / "gpu.md"
    options = ["--device", "cpu", "--seconds", "1200", "--out", str(out)]
    environment = {**os.environ, "PYTHON": sys.executable}
    script = ["bash", "benchmarks/gpu/run.sh", *options]
    subprocess.run(script, cwd=ROOT, env=environment, check=True)
    rows = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    assert {row["part"] for row in rows} == set(PARTS)
    for row in rows:
        assert "FAILED" not in row["measured"] + row["note"], row
    values = {row["measured"]: row["values"] for row in rows}
    assert values["embeddings, float32"]["minimum cosine"] > 0.999
    assert values["nearest cells in torch"]["share of equal cells"] == 1
    assert values["ghost, float32"]["relative error"] < 1e-3
    assert len([name for name in values if name.endswith(", one run")]) == 7
    assert sum(name.startswith("N = 22: ") for name in values) == 7
    assert table(rows) in out.read_text(encoding="utf-8")
