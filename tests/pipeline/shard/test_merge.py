"""Merging runs gives files of bounded size in the order of the leaves."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.format.accounts import Tally
from data_catalog.format.tokens import map_tokens
from pipeline.shard.merge import LeafRange, group_ends, merge_runs, plan_files
from pipeline.shard.sorted_runs import SortedRuns, row_bytes, write_runs
from tests.helpers.stored import document_table

HALF = 2**63
LEAVES = 32


def test_files_have_as_many_leaves_as_fit():
    assert plan_files(np.array([0, 1, 3, 7, 8]), np.array([40, 60, 10, 90, 5]), 100) == [
        LeafRange(0, 3),
        LeafRange(3, 8),
        LeafRange(8, 9),
    ]
    assert plan_files(np.array([], np.int64), np.array([], np.int64), 100) == []


def test_a_leaf_that_does_not_fit_is_cut_into_shares():
    assert plan_files(np.array([0, 1, 2]), np.array([10, 250, 20]), 100) == [
        LeafRange(0, 1),
        LeafRange(1, 2, 0, 3),
        LeafRange(1, 2, 1, 3),
        LeafRange(1, 2, 2, 3),
        LeafRange(2, 3),
    ]


def runs_of(folder, *tables):
    found = []
    for number, table in enumerate(tables):
        (folder / f"runs-{number}").mkdir(parents=True)
        write_runs([table], folder / f"runs-{number}", 2**30, [0, LEAVES])
        found.append(SortedRuns(folder / f"runs-{number}"))
    return found


@pytest.fixture
def runs(tmp_path):
    """Leaves 4 and 5 of top-level domain 2, and leaf 9, which is another's."""
    first = document_table(
        leaf=[5, 4, 9], number=[3, 2, 1], doc_id=["a", "b", "c"], ids=[[1, 2, 0], [3, 0], [9, 0]]
    )
    second = document_table(
        leaf=[4, 5, 4],
        number=[1, 4, 9],
        held_out=[False, False, True],
        doc_id=["d", "e", "f"],
        ids=[[4, 0], [0], [7, 7, 7, 0]],
    )
    return runs_of(tmp_path, first, second)


def test_runs_become_one_sorted_file_with_its_tokens_and_offsets(tmp_path, runs):
    (tmp_path / "out").mkdir()
    offsets, written = merge_runs(runs, 4, 6, tmp_path / "out", 2**30, top=2)
    documents = pq.read_table(tmp_path / "out" / "documents-0000.parquet")
    assert documents["doc_id"].to_pylist() == ["d", "b", "f", "a", "e"]
    values, starts = map_tokens(tmp_path / "out" / "tokens-0000.arrow")
    assert values.tolist() == [4, 0, 3, 0, 7, 7, 7, 0, 1, 2, 0, 0]
    assert starts.tolist() == [0, 2, 4, 8, 11, 12]
    assert [tuple(row.values()) for row in offsets.to_pylist()] == [
        (4, "train", 2, 0, 0, 2, 0, 4),
        (4, "heldout", 2, 0, 2, 1, 4, 4),
        (5, "train", 2, 0, 3, 2, 8, 4),
    ]
    assert written == Tally(rows=5, characters=5, tokens=12)


def test_a_large_leaf_has_an_extent_of_each_split_in_every_file(tmp_path):
    numbers = [1, 2, HALF + 1, HALF + 2]
    table = document_table(
        leaf=[0] * 4, number=numbers, held_out=[False, True, False, True], doc_id=list("abcd")
    )
    (tmp_path / "out").mkdir()
    offsets, written = merge_runs(
        runs_of(tmp_path, table), 0, 1, tmp_path / "out", int(row_bytes(table).sum()) - 1, top=0
    )
    assert [
        row["doc_id"]
        for file in sorted((tmp_path / "out").glob("*.parquet"))
        for row in pq.read_table(file).to_pylist()
    ] == list("abcd")
    found = [
        (row["split"], row["part"], row["first_row"], row["rows"], row["first_token"])
        for row in offsets.to_pylist()
    ]
    assert found == [
        ("train", 0, 0, 1, 0),
        ("heldout", 0, 1, 1, 2),
        ("train", 1, 0, 1, 0),
        ("heldout", 1, 1, 1, 2),
    ]
    assert written.rows == 4


def test_a_share_without_documents_has_no_file(tmp_path):
    table = document_table(leaf=[0] * 4, number=[HALF + i for i in range(4)])
    (tmp_path / "out").mkdir()
    merge_runs(
        runs_of(tmp_path, table), 0, 1, tmp_path / "out", int(row_bytes(table).sum()) - 1, top=0
    )
    assert [path.name for path in (tmp_path / "out").glob("*.parquet")] == [
        "documents-0000.parquet"
    ]


def test_nothing_to_merge_gives_no_file(tmp_path, runs):
    (tmp_path / "out").mkdir()
    offsets, written = merge_runs(runs, 20, 30, tmp_path / "out", 2**30, top=5)
    assert (offsets.num_rows, written, list((tmp_path / "out").iterdir())) == (0, Tally(), [])


def test_row_groups_end_with_a_leaf_and_have_bounded_length(monkeypatch):
    monkeypatch.setattr("pipeline.shard.merge.MINIMUM_GROUP_ROWS", 3)
    monkeypatch.setattr("pipeline.shard.merge.MAXIMUM_GROUP_ROWS", 4)
    assert group_ends(np.array([0, 0, 1, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4])) == [4, 8, 12, 14, 15]
    assert group_ends(np.array([7])) == [1]


def test_row_groups_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.shard.merge.MINIMUM_GROUP_ROWS", 2)
    table = document_table(leaf=[0, 1, 1, 2, 2, 2])
    (tmp_path / "out").mkdir()
    merge_runs(runs_of(tmp_path, table), 0, 3, tmp_path / "out", 2**30, top=0)
    metadata = pq.read_metadata(tmp_path / "out" / "documents-0000.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [3, 3]


def test_the_result_does_not_depend_on_how_runs_were_cut(tmp_path):
    random = np.random.Generator(np.random.Philox(key=5))
    n = 400
    table = document_table(
        leaf=random.integers(0, 6, n).tolist(),
        number=random.integers(0, 2**64, n, np.uint64).tolist(),
    )
    whole = runs_of(tmp_path, table)
    (tmp_path / "cut").mkdir()
    write_runs([table.slice(i, 50) for i in range(0, n, 50)], tmp_path / "cut", 1, [0, LEAVES])
    for name, runs in (("a", whole), ("b", [SortedRuns(tmp_path / "cut")])):
        (tmp_path / name).mkdir()
        merge_runs(runs, 0, 6, tmp_path / name, 30_000, top=0)
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in "ab"]
    assert files[0] == files[1]
    assert len(files[0]) > 4
    for name in files[0]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_ids_of_a_leaf_are_sorted_across_its_files(tmp_path):
    random = np.random.Generator(np.random.Philox(key=6))
    table = document_table(
        leaf=[0] * 300, number=random.integers(0, 2**64, 300, np.uint64).tolist()
    )
    (tmp_path / "out").mkdir()
    merge_runs(runs_of(tmp_path, table), 0, 1, tmp_path / "out", 20_000, top=0)
    files = sorted((tmp_path / "out").glob("*.parquet"))
    numbers = pa.concat_tables([pq.read_table(file) for file in files])["id_int"].to_pylist()
    assert len(files) == 4
    assert numbers == sorted(table["id_int"].to_pylist())


@pytest.mark.parametrize("file_bytes", [2**30, 20_000])  # one file, and shares of the leaf
def test_few_runs_are_mapped_at_once(tmp_path, monkeypatch, file_bytes):
    monkeypatch.setattr("pipeline.shard.merge.MAXIMUM_MAPS", 3, raising=False)
    random = np.random.Generator(np.random.Philox(key=7))
    numbers = random.integers(0, 2**64, 300, np.uint64).tolist()
    table = document_table(leaf=[0] * 300, number=numbers)
    whole = runs_of(tmp_path, table)
    cut = runs_of(tmp_path / "cut", *(table.slice(i, 30) for i in range(0, 300, 30)))
    mapped, read = [], SortedRuns.read

    def read_and_count(*arguments):
        maps = Path("/proc/self/maps").read_text().splitlines()
        mapped.append(sum(str(tmp_path / "cut") in line for line in maps))
        return read(*arguments)

    monkeypatch.setattr(SortedRuns, "read", read_and_count)
    for name, runs in (("a", whole), ("b", cut)):
        (tmp_path / name).mkdir()
        merge_runs(runs, 0, 1, tmp_path / name, file_bytes, top=0)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == (2 if file_bytes == 2**30 else 8)
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert max(mapped) <= 3
