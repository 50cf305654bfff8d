import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.layout import Levels
from pipeline.describe.examples import (
    _MIX_FACTOR,
    LeafSample,
    domain_examples,
    first_of_each,
    leaf_examples,
    reservoir,
)


def documents(path, rows, groups=2):
    """Write rows of (leaf, distance, text). Document i has id_int i and doc_id di."""
    full = [
        {
            "doc_id": f"d{i}",
            "id_int": i,
            "leaf": leaf,
            "distance": distance,
            "text": text,
            "source": "s",
            "tokens": 1,
        }
        for i, (leaf, distance, text) in enumerate(rows)
    ]
    pq.write_table(pa.Table.from_pylist(full, tables.DOCUMENTS), path, row_group_size=groups)
    return str(path)


def test_first_of_each_group():
    rows, rank = first_of_each(np.array([1, 0, 1, 1, 0]), np.array([3, 9, 1, 2, 8]), most=2)
    assert (rows.tolist(), rank.tolist()) == ([4, 1, 2, 3], [0, 1, 0, 1])
    assert [found.tolist() for found in first_of_each(np.array([], int), most=2)] == [[], []]


def test_a_reservoir_does_not_depend_on_order_and_is_not_the_head():
    ids = np.arange(100, dtype=np.uint64)
    leaf = np.zeros(100, np.int64)
    rows, rank = reservoir(leaf, ids, most=10)
    backwards, _ = reservoir(leaf, ids[::-1], most=10)
    assert (
        ids[rows].tolist()
        == ids[::-1][backwards].tolist()
        == sorted(ids.tolist(), key=lambda i: int(i) * int(_MIX_FACTOR) % 2**64)[:10]
    )
    assert rank.tolist() == list(range(10))
    assert max(rows) > 50


def test_nearest_typical_and_boundary_documents_of_a_leaf():
    leaf, distance = np.array([3, 3, 3, 3, 3, 5]), np.array([0.5, 0.1, 0.9, 0.4, 0.2, 0.7])
    found = {
        kind: rows.tolist() for kind, (rows, _) in leaf_examples(leaf, distance, most=2).items()
    }
    assert found == {
        "nearest": [1, 4, 5],
        "typical": [3, 0, 5],
        "boundary": [2, 0, 5],
    }  # leaf 3: median 0.4; leaf 5 has one document


def test_a_coarse_domain_takes_turns_between_leaves_largest_first():
    leaf, rank = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 0])
    rows, ranks = domain_examples(leaf, rank, sizes=np.array([2, 9, 1, 0]), span=2, most=3)
    assert (rows.tolist(), ranks.tolist()) == ([2, 0, 3, 4], [0, 1, 2, 0])


def test_the_table_of_examples(tmp_path):
    first = documents(
        tmp_path / "a.parquet", [(0, 0.2, "one\n  two"), (0, 0.1, "x" * 900), (1, 0.3, "three")]
    )
    second = documents(tmp_path / "b.parquet", [(3, 0.4, "four")])
    sample = LeafSample([first, second], Levels((2, 4)))
    rows = sample.examples(Levels((2, 4))).to_pylist()
    near = [
        (r["level"], r["domain"], r["rank"], r["doc_id"], r["snippet"])
        for r in rows
        if r["kind"] == "nearest"
    ]
    assert near == [
        (2, 0, 0, "d1", "x" * 200),  # leaf 0 is larger than leaf 1
        (2, 0, 1, "d2", "three"),
        (2, 0, 2, "d0", "one two"),
        (2, 1, 0, "d0", "four"),
        (4, 0, 0, "d1", "x" * 200),
        (4, 0, 1, "d0", "one two"),
        (4, 1, 0, "d2", "three"),
        (4, 3, 0, "d0", "four"),
    ]
    assert [
        (r["doc_id"], round(r["distance"], 3))
        for r in rows
        if (r["level"], r["kind"], r["domain"]) == (4, "boundary", 0)
    ] == [
        ("d0", 0.2),
        ("d1", 0.1),
    ]


def test_openings_are_one_text_per_leaf(tmp_path):
    sample = LeafSample(
        [
            documents(
                tmp_path / "a.parquet", [(0, 0.2, "one"), (2, 0.1, "y" * 2_000), (0, 0.3, "two")], 1
            )
        ],
        Levels((2, 4)),
    )
    one, two = sample.openings()
    assert sorted(one.split("\n")) == ["one", "two"]
    assert two == "y" * 1_000


def test_no_documents_give_no_examples(tmp_path):
    sample = LeafSample([documents(tmp_path / "a.parquet", [])], Levels((2, 4)))
    assert sample.examples(Levels((2, 4))).num_rows == 0
    assert list(sample.openings()) == []
