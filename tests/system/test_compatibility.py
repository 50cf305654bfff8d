"""A catalog and two runs of 28 November 2026 (commit cb48e95) work with today's code.

They open, verify, resume and report. The archive holds a catalog of two versions, its sources, a
finished run, and the same run interrupted at a checkpoint.
"""

import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import data_catalog
from data_catalog.errors import UserError
from data_catalog.settings import parse
from pipeline.add import add
from pipeline.config import Addition
from tests.flows.cli.test_main import clustermix
from tests.helpers.repository import ROOT
from tests.helpers.tiny_training import records
from trainer.config import Train
from trainer.loop import train
from trainer.mixers.replay import replaying

ARCHIVE = ROOT / "tests" / "data" / "catalog_and_runs_of_cb48e95.tar.xz"
CATALOG, FINISHED, INTERRUPTED = Path("catalog"), Path("runs/finished"), Path("runs/interrupted")
ADDITION = {
    "source": {"kind": "jsonl", "path": "more"},
    "targets": [{"name": "songs", "path": "new_target"}],
}
FLOAT_ERROR = 1e-3  # relative, of a loss: processors add float32 numbers in different orders


@pytest.fixture(autouse=True)
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Unpack the archive into the current folder of the test."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_of(run: Path) -> Train:
    return parse(Train, json.loads((run / "config.json").read_text())["config"], str(run))


def verified(*arguments: str) -> dict[str, Any]:
    done = clustermix("verify", "catalog", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("version", "documents", "tokens"), [(1, 64, 6034), (2, 76, 7262)])
def test_both_versions_of_the_catalog_verify(version: int, documents: int, tokens: int) -> None:
    report = verified("--version", str(version))
    assert report["faults"] == []
    assert (report["documents"], report["tokens"]) == (documents, tokens)


def test_the_catalog_is_queried_and_a_domain_is_read() -> None:
    catalog = data_catalog.open(CATALOG)
    assert catalog.version == 2
    assert catalog.levels.granularities == (2, 4)
    counts = catalog.sql("SELECT leaf, count(*) FROM documents GROUP BY leaf ORDER BY leaf")
    for leaf, documents in counts.fetchall():
        assert catalog.domain(4, leaf).num_rows == documents
    newest = catalog.sql("SELECT count(*) FROM documents WHERE source = 'more'").fetchall()
    assert newest == [(12,)]
    weights = catalog.sql(
        "SELECT name, sum(weight) FROM distributions WHERE level = 4 GROUP BY ALL"
    )
    sums = dict(weights.fetchall())
    assert sums == pytest.approx({"natural": 1, "uniform": 1, "space": 2, "songs": 2})
    earlier = data_catalog.open(CATALOG, version=1)
    assert earlier.sql("SELECT count(*) FROM documents").fetchall() == [(64,)]


def test_an_addition_made_before_is_recognised() -> None:
    before = (CATALOG / "catalog.json").read_bytes()
    add(CATALOG, parse(Addition, ADDITION, "test"))
    assert (CATALOG / "catalog.json").read_bytes() == before


def test_the_catalog_takes_a_third_version() -> None:
    lines = [json.dumps({"id": f"third-{i}", "text": f"The tide {i} turns."}) for i in range(3)]
    Path("third").mkdir()
    Path("third/part.jsonl").write_text("\n".join(lines) + "\n")
    source = {"kind": "jsonl", "path": "third"}
    add(CATALOG, parse(Addition, {"source": source}, "test"))
    report = verified()
    assert report["faults"] == []
    assert (report["version"], report["documents"]) == (3, 79)


def test_the_interrupted_run_resumes_and_ends_as_the_finished_one() -> None:
    assert train(config_of(INTERRUPTED))
    resumed, finished = (records(run, "train") for run in (INTERRUPTED, FINISHED))
    assert [record["step"] for record in resumed] == list(range(1, 17))
    assert [r["batch"] for r in resumed] == [r["batch"] for r in finished]
    for kind in ("train", "eval"):
        losses = [[r["loss"] for r in records(run, kind)] for run in (INTERRUPTED, FINISHED)]
        assert losses[0] == pytest.approx(losses[1], rel=FLOAT_ERROR)
    logs = [pq.read_table(run / "weights.parquet").to_pylist() for run in (INTERRUPTED, FINISHED)]
    for row, expected in zip(*logs, strict=True):
        assert row.keys() == expected.keys()
        assert row["first_sequence"] == expected["first_sequence"]
        assert row["sampling"] == pytest.approx(expected["sampling"], rel=FLOAT_ERROR)
    usage = [pq.read_table(run / "usage.parquet") for run in (INTERRUPTED, FINISHED)]
    assert usage[0].equals(usage[1])
    assert json.loads((INTERRUPTED / "config.json").read_text())["history"] == []


def test_weights_of_the_runs_stay_shares_of_sequences_also_in_a_replay() -> None:
    assert config_of(INTERRUPTED).data.draw_by == "sequences"
    assert replaying(FINISHED, None, Path("runs/new")).data.draw_by == "sequences"
    Path("own.toml").write_text('catalog = "catalog"\ntarget = "space"\n')
    assert replaying(FINISHED, Path("own.toml"), Path("runs/new")).data.draw_by == "sequences"
    chosen = replaying(FINISHED, Path("own.toml"), Path("runs/new"), ["data.draw_by=tokens"])
    assert chosen.data.draw_by == "tokens"


def test_a_config_of_today_is_refused_with_what_the_run_did() -> None:
    settings = config_of(INTERRUPTED).model_dump()
    settings["data"]["draw_by"] = "tokens"
    with pytest.raises(UserError, match=r"data\.draw_by was sequences and is now tokens"):
        train(Train.model_validate(settings))


def test_the_finished_run_is_not_trained_again() -> None:
    before = (FINISHED / "metrics.jsonl").read_bytes()
    assert train(config_of(FINISHED))
    assert (FINISHED / "metrics.jsonl").read_bytes() == before


def test_runs_are_queried_beside_the_catalog() -> None:
    catalog = data_catalog.open(CATALOG, runs=[FINISHED, INTERRUPTED])
    steps = catalog.sql("SELECT run, max(step) FROM metrics GROUP BY run ORDER BY run").fetchall()
    assert steps == [("finished", 16), ("interrupted", 9)]


@pytest.mark.parametrize(
    ("folders", "word"),
    [
        (["catalog"], "tide"),
        (["runs/finished", "runs/interrupted", "--catalog", "catalog"], "interrupted"),
        (["runs/finished"], "finished"),
    ],
)
def test_reports_are_written(folders: list[str], word: str) -> None:
    done = clustermix("report", *folders, "--out", "page.html")
    assert done.returncode == 0, done.stderr
    assert word in Path("page.html").read_text(encoding="utf-8")
