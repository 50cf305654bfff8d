import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.errors import UserError
from pipeline.config import Build
from pipeline.source.documents import Document, Fault
from pipeline.source.registry import corpus_source
from pipeline.source.stage import read_shard


def open_dataset(folder, **more):
    section = {"kind": "dataset", "name": str(folder), **more}
    return corpus_source(Build.model_validate({"out": "out", "source": section}))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "set").mkdir()
    for k in range(3):
        table = pa.table(
            {
                "body": [f"text {k} {i}" for i in range(4)] + [""],
                "key": [f"id-{k}-{i}" for i in range(5)],
            }
        )
        pq.write_table(table, tmp_path / "set" / f"{k}.parquet", row_group_size=2)
    return tmp_path / "set"


COLUMNS = {"text": "body", "id": "key"}


def records(source):
    return [list(source.read(shard)) for shard in source.plan().shards]


def test_each_shard_of_the_dataset_becomes_a_shard(folder):
    source = open_dataset(folder, columns=COLUMNS)
    shards = source.plan().shards
    assert [shard.name for shard in shards] == [
        "set_train-00000",
        "set_train-00001",
        "set_train-00002",
    ]
    assert len({shard.inputs[0].version for shard in shards}) == 1
    found = records(source)
    assert [item.doc_id for item in found[1] if isinstance(item, Document)] == [
        "id-1-0",
        "id-1-1",
        "id-1-2",
        "id-1-3",
    ]
    assert found[2][0] == Document("id-2-0", "text 2 0", source="set/train")
    assert [(item.file, item.row, item.reason) for item in found[1] if isinstance(item, Fault)] == [
        ("set/train/00001", 4, "empty_text")
    ]


def test_records_without_ids_are_named_by_their_row(folder):
    source = open_dataset(folder, columns={"text": "body"})
    assert [item.doc_id for item in records(source)[1][:2]] == [
        "set/train/00001/0",
        "set/train/00001/1",
    ]


def test_a_shard_becomes_a_part_that_is_kept_until_the_dataset_changes(folder, tmp_path):
    source = open_dataset(folder, columns=COLUMNS)
    first = read_shard(source.plan().shards[0], tmp_path / "part", source)
    assert (first.account.kept.rows, first.account.failed["empty_text"].rows) == (4, 1)
    assert read_shard(source.plan().shards[0], tmp_path / "part", source) == first
    pq.write_table(pa.table({"body": ["new"], "key": ["n"]}), folder / "0.parquet")
    second = read_shard(source.plan().shards[0], tmp_path / "part", source)
    assert (second.fingerprint != first.fingerprint, second.account.kept.rows) == (True, 1)


def test_a_broken_file_of_the_dataset_is_a_fault_of_its_shard_alone(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.jsonl").write_text(
            '{"text": "a"}\n' * 3 if k != 1 else '{"text": "a"}\n{broken\n'
        )
    found = records(open_dataset(tmp_path))
    assert [len([item for item in items if isinstance(item, Document)]) for items in found] == [
        3,
        0,
        3,
    ]
    assert [item.reason for item in found[1]] == ["unreadable_dataset"]
    assert found[1][0].counted


def test_a_missing_column_is_refused_before_work_starts(folder):
    with pytest.raises(UserError, match=r'source\.columns\.text: .*"text".* body, key'):
        open_dataset(folder).plan()
