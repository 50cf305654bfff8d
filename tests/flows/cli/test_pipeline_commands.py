"""Output of the commands around a build: fetch, plan, add, quality and verify."""

import gzip
import json
import shutil
import tempfile
import uuid

import pytest
from typer.testing import CliRunner

from data_catalog.transfer.copy import export_catalog
from flows.cli.app import app
from tests.flows.cli.test_main import toml
from tests.helpers.failing_server import serving
from tests.pipeline.test_add import write_more


def clustermix(*arguments):
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_plan_prints_an_estimate_and_writes_nothing(built, tmp_path):
    config = tmp_path / "build.toml"
    config.write_text(toml({**built[1], "out": str(tmp_path / "catalog")}))
    printed = clustermix("plan", config).output
    assert [
        word for word in ("documents", "tokens", "levels", "time", "disk") if word not in printed
    ] == []
    found = json.loads(clustermix("plan", config, "--json").stdout)
    assert found["documents"]["likely"] == 161
    assert {note["reason"]: note["number"] for note in found["faults"]}["no_text"] == 1
    assert found["granularities"] == [2, 4]
    assert not (tmp_path / "catalog").exists()


def test_quality_lists_presets_and_applies_other_rules_to_a_catalog(built):
    assert "Rae et al. 2021" in json.dumps(json.loads(clustermix("quality", "--json").stdout))
    words = (
        "quality",
        built[0],
        "--retune",
        "--preset",
        "gopher",
        "--set",
        "words.least=20",
        "--json",
    )
    found = json.loads(clustermix(*words).stdout)
    assert set(found) == {"rules", "kept", "sources"}
    assert next(rule for rule in found["rules"] if rule["rule"] == "words")["least"] == 20
    assert "words" in clustermix("quality", built[0], "--preset", "gopher").output
    assert (
        "bound" in clustermix("quality", built[0], "--preset", "gopher", "--sweep", "words").output
    )


@pytest.mark.slow
@pytest.mark.parametrize("in_store", [False, True])
def test_adding_documents_keeps_the_first_version(built, tmp_path, monkeypatch, in_store):
    root = str(tmp_path / "catalog")
    if in_store:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        root = f"memory://{uuid.uuid4().hex}/catalog"
    export_catalog(built[0], root)
    write_more(tmp_path / "more")
    config = tmp_path / "add.toml"
    config.write_text(toml({"source": {"kind": "jsonl", "path": str(tmp_path / "more")}}))
    printed = clustermix("add", root, config).output
    assert "200 documents" in printed
    assert f"{root}/report.html" in printed.replace("\n", "")
    assert "version 2" in clustermix("verify", root).output
    assert "version 1" in clustermix("verify", root, "--version", 1).output
    count = "SELECT count(*) AS n FROM documents"
    assert json.loads(clustermix("query", root, count, "--json").stdout) == [{"n": 200}]
    assert json.loads(clustermix("query", root, count, "--version", 1, "--json").stdout) == [
        {"n": 160}
    ]


def test_verify_prints_the_damaged_file_and_fails(built, tmp_path):
    root = shutil.copytree(built[0], tmp_path / "catalog")
    (root / "tokenizer" / "tokenizer.json").write_text("{}")
    done = clustermix("verify", root)
    assert done.exit_code == 1
    assert "tokenizer.json" in done.output


@pytest.mark.parametrize(
    ("faults", "code", "counts"), [([], 0, "3 files fetched"), (["403"] * 9, 1, "1 failed")]
)
def test_fetch_counts_files_and_fails_if_one_failed(tmp_path, faults, code, counts):
    with serving() as server:
        server.files["listings/en-2023-06-head_middle.txt"] = b"2023-06/0000/en_head\n"
        server.files["documents/2023-06/0000/en_head.json.gz"] = gzip.compress(
            b'{"raw_content": "text"}\n'
        )
        server.files["duplicates/2023-06/0000/en_head.duplicates.parquet"] = b"no footer"
        server.faults["documents/2023-06/0000/en_head.json.gz"] = faults
        done = clustermix(
            "fetch",
            "rpv2",
            tmp_path / "rpv2",
            "--snapshot",
            "2023-06",
            "--lang",
            "en",
            "--base-url",
            server.url,
        )
    assert (done.exit_code, counts in done.output.replace("\n", " ")) == (code, True), done.output
    assert "1 absent upstream" in done.output  # the quality signals


def test_fetch_dataset_writes_parquet_files(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "train.jsonl").write_text(
        "".join(json.dumps({"text": f"number {i}"}) + "\n" for i in range(5))
    )
    done = clustermix(
        "fetch", "dataset", tmp_path / "here", tmp_path / "there", "--rows-per-piece", 2
    )
    assert "5 rows in 3 files" in done.output
