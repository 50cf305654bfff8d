import json
import os
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import IterableDataset
from torch.multiprocessing import ProcessExitedException

from data_catalog.errors import UserError
from pipeline.fetch import dataset
from pipeline.fetch.dataset import FetchedDataset, fetch_dataset
from pipeline.fetch.record import open_record
from pipeline.source.config import Dataset, Parquet
from pipeline.source.parquet import ParquetSource
from pipeline.source.stream import Stream
from tests.helpers.processes import run_in_process


@pytest.fixture
def source(tmp_path):
    """2,500 rows in three files."""
    (tmp_path / "set").mkdir()
    for k, rows in enumerate((1_000, 500, 1_000)):
        table = pa.table(
            {
                "text": [f"text {k} {i}" for i in range(rows)],
                "id": [f"{k}-{i}" for i in range(rows)],
                "n": range(rows),
            }
        )
        pq.write_table(table, tmp_path / "set" / f"{k}.parquet", row_group_size=64)
    return Dataset(name=str(tmp_path / "set"))


EXPECTED = [f"{k}-{i}" for k, rows in enumerate((1_000, 500, 1_000)) for i in range(rows)]


def pieces(root):
    return {path.name: path.read_bytes() for path in sorted(root.glob("*.parquet"))}


def ids(root):
    return [
        row
        for path in sorted(root.glob("*.parquet"))
        for row in pq.read_table(path)["id"].to_pylist()
    ]


def test_pieces_hold_all_rows_in_order_and_are_a_parquet_source(source, tmp_path):
    seen = []
    done = fetch_dataset(
        tmp_path / "out",
        source,
        rows_per_piece=1_100,
        on_piece=lambda *numbers: seen.append(numbers),
    )
    assert (done.pieces, done.rows, done.finished) == (3, 2_500, True)
    assert [(count, rows) for count, rows, _ in seen] == [(1, 1_100), (2, 2_200), (3, 2_500)]
    assert [
        pq.read_metadata(path).num_rows for path in sorted((tmp_path / "out").glob("*.parquet"))
    ] == [1_100, 1_100, 300]
    assert ids(tmp_path / "out") == EXPECTED
    assert pq.read_table(tmp_path / "out").num_rows == 2_500  # the folder as a whole is Parquet
    pieces_source = ParquetSource(Parquet(kind="parquet", path=tmp_path / "out"))
    items = [item for shard in pieces_source.plan().shards for item in pieces_source.read(shard)]
    assert [item.doc_id for item in items] == EXPECTED
    lines = [
        json.loads(line) for line in (tmp_path / "out" / "_fetch.jsonl").read_text().splitlines()
    ]
    assert [(line["path"], line["state"]) for line in lines] == [
        (f"part-0000{i}.parquet", "fetched") for i in range(3)
    ]


def test_a_second_fetch_writes_nothing_and_the_maximum_can_be_raised(source, tmp_path):
    root = tmp_path / "out"
    limited = fetch_dataset(root, source, rows_per_piece=1_000, max_rows=1_500)
    assert (limited.pieces, limited.rows, limited.finished) == (2, 1_500, False)
    assert fetch_dataset(root, source, rows_per_piece=1_000, max_rows=1_500) == limited
    done = fetch_dataset(root, source, rows_per_piece=1_000)
    assert (done.rows, done.finished, ids(root)) == (2_500, True, EXPECTED)
    before = pieces(root)
    assert fetch_dataset(root, source, rows_per_piece=1_000) == done
    assert pieces(root) == before


def test_columns_can_be_left_out(source, tmp_path):
    fetch_dataset(tmp_path / "out", source, keep=("id", "text"))
    assert pq.read_schema(tmp_path / "out" / "part-00000.parquet").names == ["id", "text"]
    with pytest.raises(UserError, match=r"keep: .* x\. .*text, id, n"):
        fetch_dataset(tmp_path / "other", source, keep=("x",))


def test_a_piece_ends_when_it_is_large(source, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "PIECE_BYTES", 5_000)
    monkeypatch.setattr(dataset, "_BATCH_ROWS", 400)
    done = fetch_dataset(tmp_path / "out", source)
    assert done.pieces > 3
    assert ids(tmp_path / "out") == EXPECTED


def test_rows_with_another_schema_begin_a_new_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_BATCH_ROWS", 2)
    rows = [
        {"a": 1},
        {"b": "x"},
        {"a": 2, "b": "y"},
        {"a": 3},
        {"a": "four"},
        {"a": "five"},
        {"a": "six"},
    ]
    stream = Stream(lambda: IterableDataset.from_generator(lambda: iter(rows)))
    with open_record(tmp_path) as record:
        found = dataset._PieceFolder(tmp_path, record, {}, None)
        found.fill(stream, None, 100, None)
    assert (found.fetched.rows, found.fetched.finished) == (7, True)
    assert [pq.read_table(path).to_pylist() for path in sorted(tmp_path.glob("*.parquet"))] == [
        [{"a": 1, "b": None}, {"a": None, "b": "x"}, {"a": 2, "b": "y"}, {"a": 3, "b": None}],
        [{"a": "four"}, {"a": "five"}, {"a": "six"}],
    ]


def test_a_folder_of_another_dataset_is_refused(source, tmp_path):
    fetch_dataset(tmp_path / "out", source)
    with pytest.raises(UserError, match=r"out: .*set/train.* keep"):
        fetch_dataset(tmp_path / "out", source, keep=("text",))
    pq.write_table(
        pa.table({"text": ["new"], "id": ["x"], "n": [1]}), Path(source.name) / "0.parquet"
    )
    with pytest.raises(UserError, match=r"out: .*version"):
        fetch_dataset(tmp_path / "out", source)
    (tmp_path / "out" / "_position.json").write_text("{}")
    with pytest.raises(UserError, match=r"_position\.json"):
        fetch_dataset(tmp_path / "out", source)


def test_a_damaged_file_ends_the_fetch_with_an_error(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.jsonl").write_text('{"text": "a"}\n{broken\n')
    with pytest.raises(UserError, match=r"fetch dataset: .*damaged"):
        fetch_dataset(tmp_path / "out", Dataset(name=str(tmp_path / "set")))


def fetch_until_killed(folder: Path, name: str, moment: str) -> None:
    """Kill this process before or after the position behind the second piece is written."""

    def killing(function, is_doomed):
        def call(*arguments):
            if is_doomed(*arguments):
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)

        return call

    if moment == "before the position":
        dataset.write_json = killing(
            dataset.write_json, lambda path, content: content["streamed"]["pieces"] == 2
        )
    else:
        dataset.sha256_file = killing(
            dataset.sha256_file, lambda path: path.name == "part-00001.parquet"
        )
    fetch_dataset(folder, Dataset(name=name), rows_per_piece=700)


@pytest.mark.system
@pytest.mark.parametrize("moment", ["before the position", "after the position"])
def test_a_fetch_killed_between_two_writes_resumes_to_the_same_files(source, tmp_path, moment):
    with pytest.raises(ProcessExitedException, match="SIGKILL"):
        run_in_process(fetch_until_killed, tmp_path / "killed", source.name, moment)
    assert "part-00001.parquet" in pieces(tmp_path / "killed")
    fetch_dataset(tmp_path / "killed", source, rows_per_piece=700)
    whole = fetch_dataset(tmp_path / "whole", source, rows_per_piece=700)
    assert whole == FetchedDataset(4, 2_500, whole.bytes, True)
    assert pieces(tmp_path / "killed") == pieces(tmp_path / "whole")
    assert not list((tmp_path / "killed").glob(".part-*"))
