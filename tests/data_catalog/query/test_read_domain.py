"""Reading a domain gives exactly its documents and reads only their row groups."""

import pyarrow.parquet as pq
import pytest

from data_catalog.errors import UserError
from data_catalog.format.offsets import read_offsets
from data_catalog.query.read_domain import read_domain
from pipeline.shard import merge as merging
from tests.helpers.manifests import tiny_files
from tests.helpers.stored import document_table, store


@pytest.fixture
def catalog(tmp_path, monkeypatch):
    """Write l documents `l/0`, `l/1` and so on per leaf l, of which the first is held out.

    Row groups have at least two rows, and each file has several leaves.
    """
    monkeypatch.setattr(merging, "MINIMUM_GROUP_ROWS", 2)
    leaf = [leaf for leaf in range(6) for _ in range(leaf)]
    names = [f"{leaf}/{i}" for leaf in range(6) for i in range(leaf)]
    table = document_table(
        leaf=leaf, doc_id=names, held_out=[name.endswith("/0") for name in names]
    )
    layout, offsets = store(table, tmp_path, tops=2, span=3, file_bytes=1500)
    layout.tables.mkdir(parents=True)
    pq.write_table(offsets, layout.offsets)
    files = tiny_files(tmp_path, granularities=[2, 6])
    return files, read_offsets(files)


def names(catalog, level, domain):
    return read_domain(*catalog, level, domain, ["doc_id"])["doc_id"].to_pylist()


def test_a_leaf_is_read_whole_and_alone(catalog):
    assert [names(catalog, 6, leaf) for leaf in range(4)] == [
        [],
        ["1/0"],
        ["2/1", "2/0"],
        ["3/1", "3/2", "3/0"],
    ]


def test_a_domain_of_several_files_is_read_from_all(catalog):
    assert len(list(catalog[0].root.glob("documents/top=0001/*"))) > 1
    assert names(catalog, 2, 1) == [
        "3/1",
        "3/2",
        "3/0",
        "4/1",
        "4/2",
        "4/3",
        "4/0",
        "5/1",
        "5/2",
        "5/3",
        "5/4",
        "5/0",
    ]


def test_columns_come_in_the_order_asked_for(catalog):
    table = read_domain(*catalog, 6, 1, ["text", "leaf"])
    assert table.to_pylist() == [{"text": "x", "leaf": 1}]
    assert read_domain(*catalog, 6, 0, ["text", "leaf"]).column_names == ["text", "leaf"]
    assert len(read_domain(*catalog, 6, 1).column_names) == 14


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 0), "level 3: "),
        ((6, 6), "domain 6: .* 0 to 5"),
        ((6, -1), "domain -1"),
        ((6, 0, ["words"]), "columns words: .*doc_id"),
    ],
)
def test_unknown_domains_and_columns_are_refused(catalog, arguments, message):
    with pytest.raises(UserError, match=message):
        read_domain(*catalog, *arguments)


def test_a_damaged_file_is_a_user_error(catalog):
    catalog[0].layout.documents(0, 0).write_bytes(b"PAR1 no more")
    with pytest.raises(UserError, match=r"part-0000\.parquet: .*clustermix verify"):
        names(catalog, 6, 1)
