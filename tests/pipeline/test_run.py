"""A whole build gives the same catalog in a loop, from Prefect, and after being killed."""

import subprocess
import sys

import pyarrow.parquet as pq
import pytest

import data_catalog
from data_catalog.format.layout import Layout
from data_catalog.format.manifest import read_manifest
from data_catalog.settings import parse
from data_catalog.verify import check
from pipeline.config import Build
from pipeline.run import build, one_by_one


def test_every_document_is_reachable_or_has_a_reason(built):
    catalog = data_catalog.open(built[0])
    rows = catalog.sql(
        "SELECT stage, outcome, reason, rows FROM accounting "
        "WHERE stage IN ('source', 'dedup', 'shard')"
    ).fetchall()
    assert rows == [
        ("source", "read", None, 163),
        ("source", "kept", None, 161),
        ("source", "failed", "no_text", 1),
        ("source", "failed", "not_json", 1),
        ("dedup", "read", None, 161),
        ("dedup", "kept", None, 160),
        ("dedup", "dropped", "dedup.digest", 1),
        ("shard", "read", None, 160),
        ("shard", "kept", None, 160),
    ]
    assert catalog.sql("SELECT count(*), count(DISTINCT doc_id) FROM documents").fetchall() == [
        (160, 160)
    ]
    assert catalog.sql("SELECT sum(rows) FROM offsets").fetchall() == [(160,)]
    assert catalog.sql("SELECT file, reason FROM quarantine ORDER BY reason").fetchall() == [
        ("part-1.jsonl", "no_text"),
        ("part-1.jsonl", "not_json"),
    ]


def test_the_domains_follow_the_subjects(built):
    purity = """
        SELECT sum(most) / 160 FROM
            (SELECT max(n) AS most
             FROM (SELECT leaf, source, count(*) AS n FROM documents GROUP BY ALL)
             GROUP BY leaf)"""
    assert data_catalog.open(built[0]).sql(purity).fetchall()[0][0] > 0.95


def test_the_target_has_weight_where_its_subject_is(built):
    query = """
        SELECT d.source FROM distributions p JOIN documents d ON d.leaf = p.domain
        WHERE p.name = 'space' AND p.kind = $kind AND p.level = 4
        GROUP BY d.source ORDER BY sum(p.weight) DESC LIMIT 1"""
    for kind in ("hard", "distance"):
        assert data_catalog.open(built[0]).sql(query.replace("$kind", f"'{kind}'")).fetchall() == [
            ("astronomy",)
        ]


def test_only_the_align_split_shapes_a_distribution(built):
    query = """
        SELECT coalesce(sum(p.weight), 0) FROM distributions p
        WHERE p.name = 'space' AND p.kind = 'hard' AND p.level = 4
          AND p.domain IN (SELECT leaf FROM documents WHERE source = 'music')"""
    assert data_catalog.open(built[0]).sql(query).fetchall() == [(0,)]


def test_offsets_point_at_rows_of_their_leaf_and_split(built):
    catalog = data_catalog.open(built[0])
    for row in catalog.sql("SELECT * FROM offsets").to_arrow_table().to_pylist():
        documents = pq.read_table(Layout(built[0]).documents(row["top"])).slice(
            row["first_row"], row["rows"]
        )
        assert set(documents["leaf"].to_pylist()) == {row["leaf"]}
        assert set(documents["split"].to_pylist()) == {row["split"]}
        assert sum(documents["tokens"].to_pylist()) == row["tokens"]
    assert catalog.sql(
        "SELECT count(*) = count(DISTINCT (leaf, split)), count(DISTINCT split) FROM offsets"
    ).fetchall() == [(True, 2)]


def test_distributions_sum_to_one(built):
    sums = (
        data_catalog.open(built[0])
        .sql("SELECT name, kind, level, sum(weight) FROM distributions GROUP BY ALL")
        .fetchall()
    )
    assert len(sums) == 2 * 4  # two levels of natural, uniform, and two kinds of the target
    assert all(total == pytest.approx(1) for *_, total in sums)


@pytest.mark.system
def test_the_files_are_as_recorded_and_the_views_work_in_the_shell(built):
    assert check(built[0]).faults == ()
    code = (
        "import duckdb; shell = duckdb.connect('catalog.duckdb', read_only=True); "
        "print(shell.sql('SELECT count(*) FROM documents').fetchall())"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=built[0], capture_output=True, text=True, check=True
        ).stdout
        == "[(160,)]\n"
    )


def test_building_again_reuses_all_parts(built):
    before = read_manifest(built[0])
    made = []

    def watch(stage, function, calls):
        parts = one_by_one(stage, function, calls)
        made.extend(part.folder.stat().st_mtime_ns for part in parts)
        return parts

    earlier = {path: path.stat().st_mtime_ns for path in (built[0] / "work").glob("*/*")}
    build(parse(Build, built[1], "test"), watch)
    assert set(made) <= set(earlier.values())
    assert {path: path.stat().st_mtime_ns for path in earlier} == earlier
    assert read_manifest(built[0]).fingerprint == before.fingerprint


@pytest.mark.parametrize("runner", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_prefect_gives_the_same_catalog(built, tmp_path, prefect_server, runner):
    from flows.build import build as flow
    from flows.runners import task_runner

    settings = {**built[1], "out": str(tmp_path / "catalog")}
    flow.with_options(task_runner=task_runner(runner, workers=2))(parse(Build, settings, "test"))
    assert read_manifest(tmp_path / "catalog").fingerprint == read_manifest(built[0]).fingerprint
