"""Documents written as sorted runs are read back sorted by leaf range, in bounded memory."""

import numpy as np
import pyarrow as pa
import pytest

from data_catalog.format.accounts import Tally
from pipeline.shard.sorted_runs import (
    RUN_BATCH_ROWS,
    SortedRuns,
    row_bytes,
    run_columns,
    sorted_order,
    write_runs,
)
from tests.helpers.stored import document_table


def rows(tables):
    return [
        (leaf, doc)
        for table in tables
        for leaf, doc in zip(table["leaf"].to_pylist(), table["doc_id"].to_pylist(), strict=True)
    ]


def test_a_run_is_sorted_by_leaf_then_train_then_number():
    table = document_table(
        leaf=[1, 0, 1, 1], held_out=[True, False, False, False], number=[1, 9, 8, 7]
    )
    assert sorted_order(table).tolist() == [1, 3, 2, 0]


def test_documents_with_one_number_are_sorted_by_name():
    table = document_table(leaf=[0, 0, 0], number=[5, 5, 4], doc_id=["b", "a", "c"])
    assert sorted_order(table).tolist() == [2, 1, 0]


def write_two_runs(folder, bounds):
    """Write the leaves 3, 0, 2 as one run and 2, 3 as another."""
    first = document_table(leaf=[3, 0, 2], doc_id=["a", "b", "c"])
    second = document_table(leaf=[2, 3], doc_id=["d", "e"])
    return write_runs(
        [first, document_table(leaf=[]), second], folder, int(row_bytes(first).sum()), bounds
    )


def test_leaves_are_read_back_from_every_run(tmp_path):
    assert write_two_runs(tmp_path, [0, 4]) == Tally(rows=5, characters=5, tokens=10)
    runs = SortedRuns(tmp_path)
    assert rows(runs.read(0, 4)) == [(0, "b"), (2, "c"), (3, "a"), (2, "d"), (3, "e")]
    assert rows(runs.read(2, 3)) == [(2, "c"), (2, "d")]
    assert rows(runs.read(1, 2)) == []
    assert next(runs.read(2, 3)).schema.names == run_columns()


def test_a_part_has_one_file_per_range_with_documents(tmp_path):
    write_two_runs(tmp_path, [0, 1, 2, 3, 4])
    names = ["range-00000.arrow", "range-00002.arrow", "range-00003.arrow"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    found = [rows(SortedRuns(tmp_path, number).read(0, 4)) for number in range(4)]
    assert found == [[(0, "b")], [], [(2, "c"), (2, "d")], [(3, "a"), (3, "e")]]


def test_a_file_that_stays_mapped_is_opened_once(tmp_path):
    write_two_runs(tmp_path, [0, 4])
    mapped, again = SortedRuns(tmp_path, stay_mapped=True), SortedRuns(tmp_path)
    before = rows(mapped.read(2, 3)), rows(again.read(2, 3))
    (tmp_path / "range-00000.arrow").unlink()
    assert (rows(mapped.read(2, 3)), rows(again.read(2, 3))) == (before[0], [])
    assert before == ([(2, "c"), (2, "d")], [(2, "c"), (2, "d")])


def test_a_range_is_read_without_the_files_of_the_others(tmp_path):
    write_two_runs(tmp_path, [0, 2, 3, 4])
    for number in (0, 2):
        (tmp_path / f"range-0000{number}.arrow").unlink()
    assert rows(SortedRuns(tmp_path, 1).read(2, 3)) == [(2, "c"), (2, "d")]


def test_a_range_can_span_record_batches(tmp_path):
    n = 2 * RUN_BATCH_ROWS + 10
    write_runs(
        [document_table(leaf=(np.arange(n) // RUN_BATCH_ROWS).tolist(), number=list(range(n)))],
        tmp_path,
        2**30,
        [0, 3],
    )
    [middle] = SortedRuns(tmp_path).read(1, 2)
    assert middle["id_int"].to_pylist() == list(range(RUN_BATCH_ROWS, 2 * RUN_BATCH_ROWS))
    [rest] = SortedRuns(tmp_path).read(1, 3)
    assert (rest.num_rows, rest["id_int"][-1].as_py()) == (RUN_BATCH_ROWS + 10, n - 1)


def test_no_documents_give_no_run(tmp_path):
    assert write_runs([], tmp_path, 1, [0, 100]) == Tally()
    assert rows(SortedRuns(tmp_path).read(0, 100)) == []


def test_the_memory_of_a_row_counts_text_tokens_and_signals():
    plain = document_table(leaf=[0], text=["x" * 1000])
    signals = pa.array([[("a", 1.0), ("b", 2.0)]], pa.map_(pa.string(), pa.float64()))
    more = plain.set_column(plain.schema.get_field_index("signals"), "signals", signals)
    assert row_bytes(plain).tolist() == [1000 + 2 * 2 + 200]
    assert row_bytes(more).tolist() == [1000 + 2 * 2 + 2 * 40 + 200]


def test_memory_is_bounded_by_a_run_for_any_part(tmp_path):
    """Arrow's own count of its peak, for eight times the documents."""

    def peak(tables: int, folder) -> int:
        folder.mkdir()
        pool = pa.default_memory_pool()
        before = pool.bytes_allocated()
        most = 0

        def documents():
            nonlocal most
            for i in range(tables):
                yield document_table(leaf=[i % 5] * 100, text=["x" * 10_000] * 100)  # a megabyte
                most = max(most, pool.bytes_allocated() - before)

        write_runs(documents(), folder, 4 * 2**20, [0, 2, 3, 5])
        return most

    few, many = peak(8, tmp_path / "few"), peak(64, tmp_path / "many")
    assert many < 1.5 * few
    assert many < 12 * 2**20


@pytest.mark.parametrize("kind", [pa.uint16(), pa.uint32()])
def test_the_width_of_the_tokens_is_kept(tmp_path, kind):
    table = document_table(leaf=[0])
    ids = table["ids"].cast(pa.large_list(kind))
    write_runs(
        [table.set_column(table.schema.get_field_index("ids"), "ids", ids)], tmp_path, 1, [0, 1]
    )
    [back] = SortedRuns(tmp_path).read(0, 1)
    assert back.schema.field("ids").type == pa.large_list(kind)
