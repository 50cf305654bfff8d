import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.errors import UserError
from data_catalog.format import tables
from data_catalog.format.layout import Layout
from data_catalog.format.tokens import TokenStore, open_target, open_tokens, write_tokens
from tests.helpers.manifests import tiny_files

PAD = 99


def files(root, version=1):
    """The files of a catalog of four leaves and the target `law`, padded with PAD."""
    tokenizer = {"vocabulary": 100, "end_of_text": PAD, "sha256": "00"}
    return tiny_files(root, version=version, tokenizer=tokenizer, targets=["law"])


@pytest.fixture
def store(tmp_path):
    """Write documents of leaves 0 and 3 of four.

    Leaf 0 has [1 2 3 0] and [4 5 0], leaf 3 has [6 0], and [7 0] held out.
    """
    for top, documents in enumerate([[[1, 2, 3, 0], [4, 5, 0]], [[6, 0], [7, 0]]]):
        layout = Layout(tmp_path)
        layout.tokens(top).parent.mkdir(parents=True)
        write_tokens(layout.tokens(top), pa.array(documents, pa.large_list(pa.uint16())))
    columns = ("leaf", "split", "top", "part", "first_row", "rows", "first_token", "tokens")
    rows = [
        (0, "train", 0, 0, 0, 2, 0, 7),
        (3, "train", 1, 0, 0, 1, 0, 2),
        (3, "heldout", 1, 0, 1, 1, 2, 2),
    ]
    layout.tables.mkdir(parents=True)
    pq.write_table(
        pa.Table.from_pylist(
            [dict(zip(columns, row, strict=True)) for row in rows], tables.OFFSETS
        ),
        Layout(tmp_path).offsets,
    )
    return tmp_path


def test_every_token_except_the_first_is_predicted_once(store):
    tokens = open_tokens(files(store), "train")
    assert tokens.sequences(4).tolist() == [2, 0, 0, 1]
    inputs, labels = tokens.read(np.array([0, 0, 3]), np.array([0, 1, 0]), 4)
    assert inputs.tolist() == [[1, 2, 3, 0], [4, 5, PAD, PAD], [6, PAD, PAD, PAD]]
    assert labels.tolist() == [[2, 3, 0, 4], [5, 0, -100, -100], [0, -100, -100, -100]]


def test_the_splits_do_not_mix(store):
    tokens = open_tokens(files(store), "heldout")
    assert tokens.sequences(4).tolist() == [0, 0, 0, 1]
    assert tokens.read(np.array([3]), np.array([0]), 2)[0].tolist() == [[7, PAD]]


def test_an_exact_fit_has_no_empty_last_sequence(store):
    assert open_tokens(files(store), "train").sequences(6).tolist() == [1, 0, 0, 1]
    assert open_tokens(files(store), "train").sequences(3).tolist() == [2, 0, 0, 1]


def test_offsets_past_the_end_are_refused(store):
    table = pq.read_table(Layout(store).offsets)
    grown = table.set_column(7, "tokens", pa.array([8, 2, 2]))
    pq.write_table(grown, Layout(store).offsets)
    with pytest.raises(UserError, match=r"offsets\.parquet"):
        open_tokens(files(store), "train")


def test_a_target_is_read_by_split(tmp_path):
    folder = tmp_path / "targets" / "law"
    folder.mkdir(parents=True)
    write_tokens(folder / "tokens.arrow", pa.array([[1, 0], [2, 3, 0]], pa.large_list(pa.uint16())))
    pq.write_table(pa.table({"split": ["align", "test"]}), folder / "documents.parquet")
    test = open_target(files(tmp_path), "law", "test")
    assert test.read(np.array([0]), np.array([0]), 4)[0].tolist() == [[2, 3, PAD, PAD]]
    begun = open_target(files(tmp_path), "law", "test", begun=True)
    assert begun.read(np.array([0]), np.array([0]), 4)[0].tolist() == [[PAD, 2, 3, PAD]]
    with pytest.raises(UserError, match=r"target law: .*validation"):
        open_target(files(tmp_path), "law", "validation")
    for name, hint in (
        ("art", "Its targets: law"),
        ("../law", r"Did you mean law\?"),
        ("..", "Its targets: law"),
    ):
        with pytest.raises(UserError, match=rf"target {re.escape(name)}: not in .*\. {hint}"):
            open_target(files(tmp_path), name, "test")


# Leaf 0 has extents of 7 and 3 tokens in two files, leaf 1 has none, and leaf 2 has extents of 1
# and 5 tokens.
GROWN = TokenStore(
    files={
        0: np.array([1, 2, 3, 0, 4, 5, 0, 9], np.uint16),
        1: np.array([6, 7, 0, 11, 12, 13, 14, 0], np.uint16),
    },
    file=np.array([0, 1, 0, 1]),
    first_token=np.array([0, 0, 7, 3]),
    tokens=np.array([7, 3, 1, 5]),
    pad=PAD,
    extents=np.array([0, 2, 2, 4]),
)


def test_sequences_are_counted_over_all_extents_of_a_leaf():
    assert GROWN.sequences(4).tolist() == [3, 0, 1]
    assert GROWN.sequences(1).tolist() == [8, 0, 4]


def test_every_label_of_a_leaf_is_counted_once():
    assert GROWN.labels().tolist() == [8, 0, 4]
    for leaf, sequences in enumerate(GROWN.sequences(4).tolist()):
        assert (
            GROWN.targets(np.full(sequences, leaf), np.arange(sequences), 4).sum()
            == GROWN.labels()[leaf]
        )


def test_a_sequence_never_crosses_the_end_of_an_extent():
    inputs, labels = GROWN.read(np.array([0, 0, 0, 2]), np.array([0, 1, 2, 0]), 4)
    assert inputs.tolist() == [[1, 2, 3, 0], [4, 5, PAD, PAD], [6, 7, PAD, PAD], [11, 12, 13, 14]]
    assert labels.tolist() == [
        [2, 3, 0, 4],
        [5, 0, -100, -100],
        [7, 0, -100, -100],
        [12, 13, 14, 0],
    ]
    assert GROWN.targets(np.array([0, 0, 0, 2]), np.array([0, 1, 2, 0]), 4).tolist() == [4, 2, 2, 4]


def test_a_first_input_makes_the_first_token_of_an_extent_a_label():
    begun = replace(GROWN, first_input=PAD)
    assert begun.sequences(4).tolist() == [3, 0, 2]
    assert begun.labels().tolist() == [10, 0, 5]
    leaves, rows = np.array([0, 0, 0, 2, 2]), np.array([0, 1, 2, 0, 1])
    inputs, labels = begun.read(leaves, rows, 4)
    assert inputs.tolist() == [
        [PAD, 1, 2, 3],
        [0, 4, 5, PAD],
        [PAD, 6, 7, PAD],
        [PAD, 11, 12, 13],
        [14, PAD, PAD, PAD],
    ]
    assert labels.tolist() == [
        [1, 2, 3, 0],
        [4, 5, 0, -100],
        [6, 7, 0, -100],
        [11, 12, 13, 14],
        [0, -100, -100, -100],
    ]
    assert begun.targets(leaves, rows, 4).tolist() == [4, 3, 3, 4, 1]


@pytest.mark.parametrize(("leaf", "row"), [(0, 3), (1, 0), (2, 1), (0, -1)])
def test_a_sequence_that_a_leaf_lacks_is_refused(leaf, row):
    with pytest.raises(IndexError, match=f"leaf {leaf}: row {row} "):
        GROWN.read(np.array([leaf]), np.array([row]), 4)


def test_an_added_extent_leaves_earlier_sequences_as_they_were(store):
    before = open_tokens(files(store), "train").read(np.array([0, 0, 3]), np.array([0, 1, 0]), 4)
    layout = Layout(store, 2)
    layout.tables.mkdir()
    write_tokens(layout.tokens(0, 1), pa.array([[8, 8, 0]], pa.large_list(pa.uint16())))
    row = {
        "leaf": 0,
        "split": "train",
        "top": 0,
        "part": 1,
        "first_row": 0,
        "rows": 1,
        "first_token": 0,
        "tokens": 3,
    }
    added = pa.Table.from_pylist([row], tables.OFFSETS)
    pq.write_table(
        pa.concat_tables([added, pq.read_table(Layout(store, 1).offsets)]), layout.offsets
    )
    grown = open_tokens(files(store, 2), "train")
    assert grown.sequences(4).tolist() == [3, 0, 0, 1]
    after = grown.read(np.array([0, 0, 3, 0]), np.array([0, 1, 0, 2]), 4)
    for old, new in zip(before, after, strict=True):
        assert new[:3].tolist() == old.tolist()
    assert after[0][3].tolist() == [8, 8, PAD, PAD]
    assert open_tokens(files(store, 1), "train").sequences(4).tolist() == [
        2,
        0,
        0,
        1,
    ]


def mapped_files(root):
    """The token files below `root` that this process has mapped."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return sorted(line.rpartition("/")[2] for line in maps if str(root) in line)


def test_few_token_files_are_mapped_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("data_catalog.format.tokens.MAXIMUM_MAPS", 3)
    layout, files_count = Layout(tmp_path), 8
    layout.tokens(0).parent.mkdir(parents=True)
    for part in range(files_count):
        write_tokens(layout.tokens(0, part), pa.array([[part, 0]], pa.large_list(pa.uint16())))
    layout.tables.mkdir(parents=True)
    offsets = {
        "leaf": [0] * files_count,
        "split": ["train"] * files_count,
        "top": [0] * files_count,
        "part": range(files_count),
        "first_row": [0] * files_count,
        "rows": [1] * files_count,
        "first_token": [0] * files_count,
        "tokens": [2] * files_count,
    }
    pq.write_table(pa.table(offsets).cast(tables.OFFSETS), layout.offsets)
    store = open_tokens(files(tmp_path), "train")
    assert len(store.files) == files_count
    assert len(mapped_files(tmp_path)) == 3
    for row in (*range(files_count), 0, 7, 3, 3):
        inputs, _ = store.read(np.array([0]), np.array([row]), 1)
        assert inputs.tolist() == [[row]]
        assert len(mapped_files(tmp_path)) == 3
    assert mapped_files(tmp_path) == [layout.tokens(0, part).name for part in (0, 3, 7)]
