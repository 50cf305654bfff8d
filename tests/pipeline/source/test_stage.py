import gzip
import json

import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from pipeline.config import Build
from pipeline.source import stage
from pipeline.source.documents import Document
from pipeline.source.registry import SOURCES, corpus_source
from pipeline.source.stage import read_shard


def build(tmp_path, *rows, **more):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    return Build.model_validate(
        {"out": tmp_path / "out", "source": {"kind": "jsonl", "path": tmp_path / "a.jsonl"}, **more}
    )


def test_a_shard_becomes_a_table_of_documents_and_one_of_faults(tmp_path):
    config = build(
        tmp_path, {"text": "héllo", "id": "x"}, "broken", {"text": "  "}, {"text": "second"}
    )
    (shard,) = corpus_source(config).plan().shards
    part = read_shard(shard, tmp_path / "part", corpus_source(config))
    assert part.account == Account(
        read=Tally(rows=4, characters=13),
        kept=Tally(rows=2, characters=11),
        failed={"empty_text": Tally(rows=1, characters=2), "not_json": Tally(rows=1)},
        noted={"no_id": Tally(rows=1)},
    )
    documents = pq.read_table(part.folder / "documents.parquet")
    assert documents.schema.equals(tables.SOURCE)
    assert documents.to_pylist()[0] == {
        "doc_id": "x",
        "id_int": 9523189915042313745,
        "url": None,
        "source": "a",
        "language": None,
        "digest": "249a5c7589499a8866064c0d58459744",
        "text": "héllo",
        "signals": [],
        "shipped_duplicate": None,
    }
    quarantine = pq.read_table(part.folder / "quarantine.parquet")
    assert quarantine.schema.equals(tables.QUARANTINE)
    assert [(row["file"], row["row"], row["reason"]) for row in quarantine.to_pylist()] == [
        ("a.jsonl", 1, "not_json"),
        ("a.jsonl", 2, "empty_text"),
        ("a.jsonl", None, "no_id"),
    ]


def test_signals_of_each_document_stay_with_it():
    documents = [
        Document("a", "x", signals={"p": 1.0, "q": 2.0}),
        Document("b", "y"),
        Document("c", "z", signals={"q": 3.0}, shipped_duplicate=True),
    ]
    table = stage.source_table(documents)
    assert table["signals"].to_pylist() == [[("p", 1.0), ("q", 2.0)], [], [("q", 3.0)]]
    assert table["shipped_duplicate"].to_pylist() == [None, None, True]


def test_faults_of_side_files_are_quarantined_but_lose_no_document(tmp_path):
    key = tmp_path / "tree" / "documents" / "2023-06" / "0000" / "en_head.json.gz"
    key.parent.mkdir(parents=True)
    key.write_bytes(gzip.compress(b'{"raw_content": "text"}\n'))
    config = Build.model_validate(
        {"out": tmp_path / "out", "source": {"kind": "rpv2", "path": tmp_path / "tree"}}
    )
    (shard,) = corpus_source(config).plan().shards
    part = read_shard(shard, tmp_path / shard.name, corpus_source(config))
    assert part.account == Account(
        read=Tally(rows=1, characters=4),
        kept=Tally(rows=1, characters=4),
        noted={"signals_missing": Tally(rows=1)},
    )
    assert pq.read_table(part.folder / "quarantine.parquet")["reason"].to_pylist() == [
        "signals_missing"
    ]


def test_groups_are_written_as_they_fill(tmp_path, monkeypatch):
    config = build(tmp_path, *({"text": "x" * 10} for _ in range(25)))
    (shard,) = corpus_source(config).plan().shards
    monkeypatch.setattr(stage, "_GROUP_ROWS", 10)
    by_rows = read_shard(shard, tmp_path / "rows", corpus_source(config))
    monkeypatch.setattr(stage, "_GROUP_CHARACTERS", 50)
    by_characters = read_shard(shard, tmp_path / "characters", corpus_source(config))
    files = [pq.ParquetFile(part.folder / "documents.parquet") for part in (by_rows, by_characters)]
    assert [file.metadata.num_row_groups for file in files] == [3, 5]
    assert [file.metadata.num_rows for file in files] == [25, 25]


def test_a_file_without_readable_records_becomes_an_empty_part(tmp_path):
    config = build(tmp_path)
    (shard,) = corpus_source(config).plan().shards
    part = read_shard(shard, tmp_path / "part", corpus_source(config))
    assert part.account == Account(read=Tally(rows=1), failed={"empty_file": Tally(rows=1)})
    assert pq.read_table(part.folder / "documents.parquet").num_rows == 0


def test_a_part_is_kept_until_its_file_changes(tmp_path):
    config = build(tmp_path, {"text": "one"})
    first = read_shard(
        corpus_source(config).plan().shards[0], tmp_path / "part", corpus_source(config)
    )
    moved = config.model_copy(update={"seed": 1})
    assert (
        read_shard(corpus_source(moved).plan().shards[0], tmp_path / "part", corpus_source(moved))
        == first
    )
    build(tmp_path, {"text": "one"}, {"text": "two"})
    second = read_shard(
        corpus_source(config).plan().shards[0], tmp_path / "part", corpus_source(config)
    )
    assert (second.fingerprint != first.fingerprint, second.account.kept.rows) == (True, 2)


def test_a_target_inside_the_corpus_is_left_out(tmp_path):
    (tmp_path / "corpus" / "space").mkdir(parents=True)
    for place in ("corpus/a.jsonl", "corpus/space/b.jsonl"):
        (tmp_path / place).write_text('{"text": "t"}\n')
    tree = {"out": tmp_path / "out", "source": {"kind": "jsonl", "path": tmp_path / "corpus"}}
    config = Build.model_validate(
        {**tree, "targets": [{"name": "space", "path": tmp_path / "corpus" / "space"}]}
    )
    assert [shard.key for shard in corpus_source(config).plan().shards] == ["a.jsonl"]


def test_a_shard_survives_json(tmp_path):
    (shard,) = corpus_source(build(tmp_path, {"text": "t"})).plan().shards
    assert type(shard).model_validate_json(shard.model_dump_json()) == shard


def test_every_kind_of_the_config_is_in_the_registry():
    union = Build.model_fields["source"].annotation
    kinds = {member.model_fields["kind"].annotation.__args__[0] for member in union.__args__}
    assert kinds == set(SOURCES)
