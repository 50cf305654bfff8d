import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from data_catalog.errors import UserError
from pipeline.source import parquet
from pipeline.source.config import Parquet
from pipeline.source.documents import Document, Fault
from pipeline.source.interface import Reservations
from pipeline.source.parquet import ParquetSource


def write(path, rows, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        pq.write_table(
            rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), file, **options
        )
    return path


def open_source(path, reserved=(), **columns):
    section = Parquet(kind="parquet", path=path, columns=columns)
    return ParquetSource(section, Reservations(tuple(reserved)))


def shards(path, reserved=(), **columns):
    return open_source(path, reserved, **columns).plan().shards


def without_notes(items):
    return [item for item in items if isinstance(item, Document) or item.counted]


def everything(path, **columns):
    source = open_source(path, **columns)
    return without_notes(item for shard in source.plan().shards for item in source.read(shard))


def test_records_give_documents_and_faults(tmp_path):
    rows = [
        {"text": "one", "id": "x", "url": "u", "source": "s", "language": "en", "n": 1},
        {"text": "two", "id": "", "url": None, "source": None, "language": None, "n": 2},
        {"text": " ", "id": "y", "url": None, "source": None, "language": None, "n": 3},
        {"text": None, "id": "z", "url": None, "source": None, "language": None, "n": 4},
    ]
    write(tmp_path / "sub" / "a.parquet", rows, row_group_size=1)
    found = everything(tmp_path)
    assert found[:2] == [
        Document("x", "one", "u", "s", "en"),
        Document("sub/a.parquet/1", "two", source="sub/a"),
    ]
    assert [(item.row, item.reason) for item in found[2:]] == [(2, "empty_text"), (3, "no_text")]


def test_columns_can_have_other_names(tmp_path):
    write(tmp_path / "a.parquet", [{"body": "t", "key": "k", "link": "l", "site": "w"}])
    assert everything(tmp_path, text="body", id="key", url="link", source="site") == [
        Document("k", "t", "l", "w")
    ]
    assert everything(tmp_path, text="body", id="body") == [Document("t", "t", source="a")]


def test_a_missing_column_is_refused_in_the_first_file_and_a_fault_in_others(tmp_path):
    write(tmp_path / "a.parquet", [{"text": "t"}])
    write(tmp_path / "b.parquet", [{"body": "t"}])
    assert [
        (item.file, item.row, item.reason, item.counted)
        for item in everything(tmp_path)
        if isinstance(item, Fault)
    ] == [("b.parquet", None, "no_text", True)]
    with pytest.raises(UserError, match=r'source\.columns\.text: .*a\.parquet.*"body".* text'):
        shards(tmp_path, text="body")


def test_a_large_file_is_cut_between_row_groups_and_rows_keep_their_numbers(tmp_path, monkeypatch):
    write(
        tmp_path / "a.parquet",
        [{"text": f"{i} " + "x" * 100} for i in range(100)],
        row_group_size=10,
        compression="none",
    )
    whole = everything(tmp_path)
    monkeypatch.setattr(parquet, "SPLIT_BYTES", 3_000)
    found = shards(tmp_path)
    assert [(shard.name, shard.piece) for shard in found] == [
        (f"a.000{i}", piece) for i, piece in enumerate([(0, 3), (3, 6), (6, 9), (9, 10)])
    ]
    assert len({str(shard.identity()) for shard in found}) == 4
    assert everything(tmp_path) == whole
    assert whole[37].doc_id == "a.parquet/37"


def test_broken_files_are_faults_after_what_could_be_read(tmp_path):
    rows = [{"text": f"{i} " + os.urandom(500).hex()} for i in range(1_000)]
    good = write(
        tmp_path / "a.parquet", rows, row_group_size=100, write_page_checksum=True
    ).read_bytes()
    damaged = bytearray(good)
    middle = len(good) * 9 // 20
    damaged[middle : middle + 10_000] = bytes(10_000)
    (tmp_path / "a.parquet").write_bytes(damaged)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 without a footer")
    (tmp_path / "c.parquet").write_bytes(b"")
    found = everything(tmp_path)
    documents, faults = (
        [item for item in found if isinstance(item, Document)],
        [item for item in found if isinstance(item, Fault)],
    )
    assert len(documents) == 400  # whole row groups: the damage is in the fifth
    assert [(fault.file, fault.row, fault.reason) for fault in faults] == [
        (f"{name}.parquet", None, "bad_parquet") for name in "abc"
    ]
    assert faults[0].detail.startswith(f"after row {len(documents) - 1} of ")


def test_a_text_that_is_not_utf_8_is_a_fault_of_its_row(tmp_path):
    array = pa.array([b"a", b"\xff\xfe", b"c"], pa.binary())
    write(
        tmp_path / "a.parquet",
        pa.table({"text": pa.Array.from_buffers(pa.string(), len(array), array.buffers())}),
    )
    assert [
        item.text if isinstance(item, Document) else (item.row, item.reason)
        for item in everything(tmp_path)
    ] == [
        "a",
        (1, "bad_utf8"),
        "c",
    ]


def test_paths_without_parquet_and_files_of_targets_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"source\.path .*gone"):
        shards(tmp_path / "gone")
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(UserError, match=r"source\.path .*\*\.parquet"):
        shards(tmp_path)
    write(tmp_path / "a.parquet", [{"text": "t"}])
    write(tmp_path / "target" / "b.parquet", [{"text": "t"}])
    assert [shard.key for shard in shards(tmp_path, [tmp_path / "target"])] == ["a.parquet"]
    with pytest.raises(UserError, match=r"source\.path .*targets"):
        shards(tmp_path, [tmp_path])


def test_a_store_reads_like_a_folder(tmp_path):
    rows = [{"text": f"{i}", "id": f"{i}"} for i in range(100)]
    remote = UPath(f"memory://{tmp_path.name}")
    for root in (tmp_path, remote):
        write(root / "sub" / "a.parquet", rows, row_group_size=10)
    assert everything(remote) == everything(tmp_path)
    (remote / "sub" / "a.parquet").write_bytes(b"PAR1")
    assert [item.reason for item in everything(remote)] == ["bad_parquet"]


def test_a_batch_of_huge_documents_has_few_rows(tmp_path):
    small, huge = [{"text": "x" * 100}] * 2_000, [{"text": os.urandom(1_000_000).hex()}] * 10
    write(tmp_path / "small.parquet", small)
    write(tmp_path / "huge.parquet", huge, use_dictionary=False)
    with parquet._open(tmp_path / "small.parquet") as file:
        assert parquet._batch_rows(file, 0) == 1_024
    with parquet._open(tmp_path / "huge.parquet") as file:
        assert parquet._batch_rows(file, 0) == 16
    assert len(everything(tmp_path)) == 2_010


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_text_over_the_limit_is_a_fault_and_the_rows_around_it_are_read(
    tmp_path, monkeypatch, kind
):
    monkeypatch.setattr(parquet, "TEXT_BYTES", 8)
    texts = ["a", "é" * 5, "b" * 8, None, "c" * 9]
    write(tmp_path / "a.parquet", pa.table({"text": pa.array(texts, kind)}))
    assert [
        item.text if isinstance(item, Document) else (item.row, item.reason)
        for item in everything(tmp_path)
    ] == ["a", (1, "too_long"), "b" * 8, (3, "no_text"), (4, "too_long")]
