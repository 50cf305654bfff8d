import numpy as np
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.offsets import Rows, extents, read_offsets
from tests.helpers.manifests import tiny_files


def test_every_leaf_and_split_has_an_extent():
    table = extents(
        np.array([2, 2, 2, 5]),
        np.array([False, False, True, False]),
        np.array([3, 4, 5, 6]),
        top=1,
        part=7,
    )
    assert table.schema == tables.OFFSETS
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        (2, "train", 1, 7, 0, 2, 0, 7),
        (2, "heldout", 1, 7, 2, 1, 7, 5),
        (5, "train", 1, 7, 3, 1, 12, 6),
    ]


def test_a_file_without_documents_has_no_extent():
    nothing = np.array([], np.int64)
    assert extents(nothing, nothing.astype(bool), nothing, 0, 0).num_rows == 0


def test_a_range_of_leaves_is_found_in_every_file(tmp_path):
    first = extents(
        np.array([0, 1, 1, 2]),
        np.array([False, False, True, False]),
        np.ones(4, np.int64),
        top=0,
        part=0,
    )
    second = extents(
        np.array([1, 3]), np.array([False, False]), np.ones(2, np.int64), top=0, part=1
    )
    import pyarrow as pa

    files = tiny_files(tmp_path)
    files.layout.tables.mkdir(parents=True)
    pq.write_table(pa.concat_tables([second, first]), files.layout.offsets)
    offsets = read_offsets(files)
    assert offsets.find(1, 3) == [Rows(0, 0, 1, 3), Rows(0, 1, 0, 1)]
    assert offsets.find(3, 4) == [Rows(0, 1, 1, 1)]
    assert offsets.find(4, 9) == []
