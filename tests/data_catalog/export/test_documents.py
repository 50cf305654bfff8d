"""An export has each selected document once, and is complete or absent."""

import json
import re
import tempfile
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import data_catalog
from data_catalog.errors import UserError
from data_catalog.export.documents import export_documents
from data_catalog.export.shards import cut, shuffled, write_shards
from data_catalog.format.manifest import read_manifest
from data_catalog.place import Place
from data_catalog.transfer.copy import export_catalog
from tests.helpers.tiny_run import write_run


def lines(out):
    return [
        json.loads(line)
        for path in sorted((out / "data").iterdir())
        for line in path.read_text().split("\n")[:-1]
    ]


@pytest.fixture(scope="module")
def catalog(built):
    return built[0]


@pytest.fixture
def run(catalog, tmp_path):
    """Return a finished run on the catalog with a weight per domain of level 4.

    The weight of domain 0 grows.
    """
    folder = write_run(
        tmp_path / "run", basis=("0", "1", "2", "3"), level=4, mixture={"basis": "domains"}
    )
    about = json.loads((folder / "config.json").read_text())
    about["catalog"] = read_manifest(catalog).fingerprint
    (folder / "config.json").write_text(json.dumps(about))
    return folder


def asked(catalog, query):
    return data_catalog.open(catalog).sql(query).fetchall()


def test_export_without_held_out_documents(catalog, tmp_path):
    made = export_documents(catalog, tmp_path / "out")
    rows = asked(catalog, "SELECT doc_id, text FROM documents WHERE split = 'train'")
    assert [(row["doc_id"], row["text"]) for row in lines(tmp_path / "out")] == rows
    [(documents, tokens)] = asked(
        catalog, "SELECT count(*), sum(tokens)::INT FROM documents WHERE split = 'train'"
    )
    assert (made.documents, made.tokens) == (documents, tokens)
    assert (made.shards["shard_00000.jsonl"].documents, list(made.shards)) == (
        documents,
        ["shard_00000.jsonl"],
    )
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == made.model_dump(
        mode="json"
    )
    held_out = export_documents(catalog, tmp_path / "held", split="heldout")
    assert (
        made.documents + held_out.documents
        == export_documents(catalog, tmp_path / "all", split="all").documents
        == 160
    )


def test_export_of_some_domains(catalog, tmp_path):
    made = export_documents(
        catalog, tmp_path / "out", level=4, domains=[1, 3], split="all", columns=["doc_id", "leaf"]
    )
    assert {row["leaf"] for row in lines(tmp_path / "out")} == {1, 3}
    assert [(made.documents,)] == asked(
        catalog, "SELECT count(*) FROM documents WHERE leaf IN (1, 3)"
    )
    coarse = export_documents(
        catalog, tmp_path / "coarse", level=2, domains=[1], split="all", columns=["leaf"]
    )
    assert [(coarse.documents,)] == asked(catalog, "SELECT count(*) FROM documents WHERE leaf >= 2")


def test_export_with_a_condition_and_columns_as_parquet(catalog, tmp_path):
    made = export_documents(
        catalog,
        tmp_path / "out",
        where="source = 'music' -- only",
        split="all",
        columns=["text", "signals", "source"],
        form="parquet",
    )
    table = pq.read_table(tmp_path / "out" / "data")
    assert table.column_names == ["text", "signals", "source"]
    assert (
        [(made.documents,)]
        == asked(catalog, "SELECT count(*) FROM documents WHERE source = 'music'")
        == [(table.num_rows,)]
    )
    assert set(table["source"].to_pylist()) == {"music"}
    export_documents(catalog, tmp_path / "lines", where="source = 'music'", columns=["signals"])
    assert lines(tmp_path / "lines")[0]["signals"]["rps_doc_word_count"] > 0  # a map is an object


def test_shards_are_about_as_large_as_asked(tmp_path):
    pieces = [pa.table({"text": ["x" * 96]}) for _ in range(5)]  # 100 bytes and some each
    assert [len(list(shard)) for shard in cut(pieces, 150)] == [2, 2, 1]
    written = list(write_shards(cut(pieces, 150), tmp_path / "data", "jsonl", ["text"]))
    assert [path.name for path, _ in written] == ["shard_00000.jsonl"] * 2 + [
        "shard_00001.jsonl"
    ] * 2 + ["shard_00002.jsonl"]
    assert (tmp_path / "data" / "shard_00001.jsonl").read_text() == 2 * (
        '{"text": "' + "x" * 96 + '"}\n'
    )


def test_shares_of_tokens_are_the_runs_weights(catalog, run, tmp_path):
    made = export_documents(
        catalog,
        tmp_path / "out",
        weights=run,
        tokens=1200,
        columns=["doc_id", "leaf", "tokens", "split"],
    )
    rows = lines(tmp_path / "out")
    longest = max(row["tokens"] for row in rows)
    assert made.tokens == sum(row["tokens"] for row in rows)
    assert abs(made.tokens - 1200) < longest
    assert len({row["doc_id"] for row in rows}) == len(rows) == made.documents
    assert {row["split"] for row in rows} == {"train"}
    weights = np.array([share.weight for share in made.shares])
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == max(weights)
    for share in made.shares:
        given = sum(row["tokens"] for row in rows if row["leaf"] == share.domain)
        assert given == share.tokens
        assert not share.exhausted
        assert abs(given - share.weight * 1200) < 2 * longest
    leaves = [row["leaf"] for row in rows]
    assert leaves != sorted(leaves)  # in random order


@pytest.mark.parametrize("cache", ["", "0"])
def test_an_export_from_a_store_is_that_from_a_disk(catalog, run, tmp_path, monkeypatch, cache):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("CLUSTERMIX_CACHE_GB", cache)
    place = Place(f"memory://{uuid.uuid4().hex}/catalog")
    export_catalog(catalog, place.url)
    selections = ({"weights": run, "tokens": 1200}, {"level": 4, "domains": [1], "split": "all"})
    for number, selection in enumerate(selections):
        local, stored = tmp_path / f"local-{number}", tmp_path / f"stored-{number}"
        made = export_documents(catalog, local, **selection)
        assert export_documents(place, stored, **selection).shards == made.shards
        assert lines(stored) == lines(local)


def test_the_same_seed_draws_the_same_documents(catalog, run, tmp_path):
    first, again, other = (
        [row["doc_id"] for row in lines(out)]
        for seed, out in ((1, tmp_path / "a"), (1, tmp_path / "b"), (2, tmp_path / "c"))
        if export_documents(catalog, out, weights=run, tokens=800, seed=seed)
    )
    assert first == again
    assert set(first) != set(other)


def test_exhausted_domains_are_reported(catalog, run, tmp_path):
    [(available,)] = asked(catalog, "SELECT sum(tokens)::INT FROM documents WHERE split = 'train'")
    made = export_documents(
        catalog, tmp_path / "out", weights=run, tokens=available * 2, columns=["doc_id", "leaf"]
    )
    assert made.tokens == available
    assert all(share.exhausted for share in made.shares)
    most = export_documents(catalog, tmp_path / "most", weights=run, tokens=int(available * 0.8))
    assert [share.domain for share in most.shares if share.exhausted] == [0]
    assert abs(most.tokens - int(available * 0.8)) < 200


def test_many_shards_hold_each_document_once(catalog, tmp_path):
    table = pq.read_table(catalog / "documents", columns=["id_int", "text"], partitioning=None)
    dealt = [
        list(shard)
        for shard in shuffled([table.slice(0, 90), table.slice(90)], 5, 0, tmp_path / "scratch")
    ]
    ids = [value for shard in dealt for piece in shard for value in piece["id_int"].to_pylist()]
    assert sorted(ids) == sorted(table["id_int"].to_pylist())
    assert len(dealt) == 5
    assert ids != table["id_int"].to_pylist()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_an_export_is_neither_repeated_nor_overwritten(catalog, run, tmp_path):
    out = tmp_path / "out"
    made = export_documents(catalog, out, weights=run, tokens=800)
    before = (out / "data" / "shard_00000.jsonl").stat().st_mtime_ns
    assert export_documents(catalog, out, weights=run, tokens=800) == made
    assert (out / "data" / "shard_00000.jsonl").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"out: .*another export"):
        export_documents(catalog, out, weights=run, tokens=801)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"mine: not empty"):
        export_documents(catalog, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"


class Cut(Exception):
    pass


def test_an_interrupted_export_leaves_no_files(catalog, run, tmp_path):
    def stop(done, total, size):
        raise Cut

    for kind in ({}, {"weights": run, "tokens": 800}):
        with pytest.raises(Cut):
            export_documents(catalog, tmp_path / "out", on_documents=stop, **kind)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_progress_ends_with_all_documents(catalog, run, tmp_path):
    seen = []
    made = export_documents(
        catalog,
        tmp_path / "out",
        weights=run,
        tokens=800,
        on_documents=lambda *counts: seen.append(counts),
    )
    assert seen[-1][:2] == (made.documents, made.documents)


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"level": 3, "domains": [0]}, r"level 3: .*\[2, 4\]"),
        ({"level": 4, "domains": [4]}, "domain 4: .* 0 to 3"),
        ({"domains": [0]}, r"domains \[0\]: level"),
        ({"level": 4}, "level 4: domains"),
        ({"columns": ["txt"]}, "column txt: .*text"),
        ({"columns": []}, "columns none"),
        ({"where": "nosuch > 1"}, "where 'nosuch > 1': Binder Error"),
        ({"where": "1=1) UNION SELECT 1, 2 --"}, "where .*: Parser Error"),
        (
            {"where": "text IN (SELECT content FROM read_text('/etc/passwd'))"},
            "where .*: Permission Error",
        ),
        ({"where": "tokens < 0"}, "documents: "),
        ({"tokens": 5}, "weights, tokens: "),
        ({"shard_megabytes": 0}, "shard_megabytes 0: "),
    ],
)
def test_invalid_selections_are_user_errors(catalog, tmp_path, request_, sentence):
    with pytest.raises(UserError, match=sentence) as found:
        export_documents(catalog, tmp_path / "out", **request_)
    assert "\n" not in str(found.value)
    assert not (tmp_path / "out").exists()


def test_a_run_on_another_catalog_is_refused(catalog, run, tmp_path):
    about = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**about, "catalog": "other"}))
    with pytest.raises(UserError, match=r"weights .*run: .*catalog"):
        export_documents(catalog, tmp_path / "out", weights=run, tokens=10)
    with pytest.raises(UserError, match="level, domains, where and split"):
        export_documents(catalog, tmp_path / "out", weights=run, tokens=10, split="all")


def test_export_commands(catalog, run, tmp_path, capsys):
    """Scripts get one JSON value on standard output."""
    from typer.testing import CliRunner

    from flows.cli import export, fetch

    def call(app, *arguments):
        result = CliRunner().invoke(
            app, [str(argument) for argument in arguments], catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        return result.stdout

    made = json.loads(
        call(
            export.export_commands,
            "documents",
            catalog,
            tmp_path / "out",
            "--weights",
            run,
            "--tokens",
            800,
            "--columns",
            "doc_id, text",
            "--json",
        )
    )
    assert (made["folder"], made["level"]) == (str(tmp_path / "out"), 4)
    output = call(
        export.export_commands,
        "documents",
        catalog,
        tmp_path / "more",
        "--weights",
        run,
        "--tokens",
        10**6,
        "--format",
        "parquet",
    )
    assert re.search(r"\b4 of 4 domains of level 4 .*100\.0%.*100\.0%", output)
    assert "tokens are missing" in output
    sent = json.loads(call(export.export_commands, "catalog", catalog, tmp_path / "disk", "--json"))
    assert sent["copied"] == sent["files"] > 10
    came = json.loads(
        call(
            fetch.fetch_commands,
            "catalog",
            tmp_path / "disk",
            tmp_path / "here",
            "--without",
            "documents",
            "--json",
        )
    )
    assert came["left_out"] == ["documents"]
    assert "without documents" in call(
        fetch.fetch_commands,
        "catalog",
        tmp_path / "disk",
        tmp_path / "here",
        "--without",
        "documents",
    )
