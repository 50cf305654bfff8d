import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.errors import UserError
from data_catalog.format import tables
from data_catalog.format.layout import Levels
from pipeline.config import Labels
from pipeline.describe.health import (
    check_labels,
    compare_labels,
    domain_flags,
    health_sentences,
    health_table,
    label_agreement,
    read_labels,
)

EN, MANY = (
    [{"name": "en", "share": 1.0}],
    [{"name": "en", "share": 0.6}, {"name": "de", "share": 0.4}],
)
SITES, SITE, NONE = (
    [{"name": "a", "share": 0.95}],
    [{"name": "a", "share": 0.96}],
    [{"name": None, "share": 1.0}],
)
GOOD = {"documents": 20, "radius": 0.8, "top_sources": SITES, "languages": EN}


def table(*rows, level=8):
    full = [{"level": level, "domain": i, **GOOD, **row} for i, row in enumerate(rows)]
    return pa.Table.from_pylist(full, pa.schema([f for f in tables.DOMAINS if f.name in full[0]]))


@pytest.mark.parametrize(
    ("row", "flags"),
    [
        ({}, []),
        ({"documents": 0, "radius": None, "top_sources": [], "languages": []}, ["empty"]),
        ({"documents": 4, "top_sources": SITE, "languages": MANY}, ["tiny"]),
        ({"radius": 0.21}, ["boilerplate"]),
        ({"documents": 1, "radius": 0.0}, ["tiny"]),
        ({"top_sources": SITE}, ["one_source"]),
        ({"top_sources": NONE}, []),
        ({"languages": MANY}, ["mixed_languages"]),
        ({"languages": [{"name": None, "share": 0.5}, {"name": "en", "share": 0.5}]}, []),
        ({"documents": 1_000, "radius": 0.9}, ["catch_all"]),
        ({"documents": 1_000, "radius": 0.7}, []),
    ],
)
def test_suspicious_domains_are_flagged(row, flags):
    assert domain_flags(table(*[{}] * 7, row))[7] == flags


def test_flags_depend_only_on_domains_of_the_same_level():
    coarse = table({"documents": 1_000, "radius": 0.9}, {"documents": 1_000}, level=2)
    assert domain_flags(pa.concat_tables([coarse, table(*[{}] * 8)])) == [[]] * 10


@pytest.fixture
def domains():
    rows = table(
        {"documents": 30},
        {"documents": 10, "radius": 0.1},
        {"documents": 0, "radius": None},
        {"documents": 0},
        level=4,
    )
    return rows.append_column("flags", pa.array(domain_flags(rows), pa.list_(pa.string())))


def test_health_measures_of_a_level(domains):
    found = {
        row["measure"]: row["value"] for row in health_table(domains, {4: {"nmi": 0.5}}).to_pylist()
    }
    assert found == {
        "domains": 4,
        "effective_domains": pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))),
        "largest_by_mean": 3.0,
        "empty": 2,
        "tiny": 0,
        "boilerplate": 1,
        "catch_all": 0,
        "one_source": 0,
        "mixed_languages": 0,
        "nmi": 0.5,
    }


def test_health_sentences(domains):
    start = (
        "level 4: the effective number of domains is 1.8, and the largest domain has 3.0 times the "
        "mean number of documents. Flagged domains: 2 without documents (2, 3), "
        "1 with nearly identical texts (boilerplate) (1)."
    )
    assert health_sentences(health_table(domains, {}), domains) == [start]
    known = health_table(domains, {4: {"labelled": 1_200.0, "nmi": 0.5, "purity": 0.25}})
    assert health_sentences(known, domains) == [
        f"{start} Agreement with the labels of 1,200 documents: NMI 0.50, purity 0.25."
    ]
    assert health_sentences(health_table(domains, {4: {"labelled": 0.0}}), domains) == [
        f"{start} No document has a label."
    ]


def test_agreement_is_one_where_labels_and_domains_nest():
    found = compare_labels(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3]), Levels((2, 4)))
    assert found == {
        2: (pytest.approx(1), 1),
        4: (pytest.approx(2 / 3), 1),
    }  # 4 domains: I = ln 2, entropies ln 2 and ln 4
    [(nmi, purity)] = compare_labels(
        np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), Levels((2,))
    ).values()
    assert (nmi, purity) == (pytest.approx(0), 0.5)
    assert compare_labels(np.array([0, 0]), np.array([0, 0]), Levels((2,))) == {2: (1, 1)}


def test_agreement_counts_the_documents_that_have_a_label(tmp_path):
    rows = [{"doc_id": f"d{i}", "leaf": leaf} for i, leaf in enumerate([0, 0, 0, 2, 3])]
    pq.write_table(pa.Table.from_pylist(rows, tables.DOCUMENTS), tmp_path / "documents.parquet")
    labels = pa.table(
        {"doc_id": ["d0", "d1", "d2", "d3", "elsewhere"], "label": ["x", "x", "y", "y", "x"]}
    )
    found = label_agreement([str(tmp_path / "documents.parquet")], labels, Levels((2, 4)))
    assert found[2] == {"labelled": 4, "nmi": pytest.approx(compare_by_hand()), "purity": 0.75}
    assert label_agreement(
        [str(tmp_path / "documents.parquet")], labels.slice(4), Levels((2, 4))
    ) == {
        2: {"labelled": 0},
        4: {"labelled": 0},
    }


def compare_by_hand():
    """Domain 0: x x y, domain 1: y."""
    information = (
        0.5 * np.log(0.5 / (0.75 * 0.5))
        + 0.25 * np.log(0.25 / (0.75 * 0.5))
        + 0.25 * np.log(0.25 / (0.25 * 0.5))
    )
    return 2 * information / (np.log(2) - 0.75 * np.log(0.75) - 0.25 * np.log(0.25))


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet"])
def test_labels_are_read_from_csv_and_parquet(tmp_path, name):
    columns = {"doc_id": ["a", "b", "c"], "topic": ["x", None, "y"], "other": [1, 2, 3]}
    if name.endswith("csv"):
        (tmp_path / name).write_text("topic,doc_id,other\nx,a,1\n,b,2\ny,c,3\n")
    else:
        pq.write_table(pa.table(columns), tmp_path / name)
    assert read_labels(Labels(path=tmp_path / name, column="topic")).to_pylist() == [
        {"doc_id": "a", "label": "x"},
        {"doc_id": "c", "label": "y"},
    ]


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("none.parquet", "topic", "labels.path .*none.parquet: .*doc_id and topic"),
        ("labels.parquet", "subject", "labels.path .*no column subject.*doc_id, topic"),
        ("labels.csv", "subject", "labels.path .*labels.csv: .*subject"),
        ("text.parquet", "topic", "labels.path .*text.parquet: .*doc_id and topic"),
        ("twice.csv", "topic", "labels.path .*2 rows for 1 documents"),
    ],
)
def test_unusable_labels_are_refused(tmp_path, name, column, message):
    pq.write_table(pa.table({"doc_id": ["a"], "topic": ["x"]}), tmp_path / "labels.parquet")
    (tmp_path / "labels.csv").write_text("doc_id,topic\na,x\n")
    (tmp_path / "twice.csv").write_text("doc_id,topic\na,x\na,y\n")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(UserError, match=message):
        check_labels(Labels(path=tmp_path / name, column=column))


def test_labels_are_optional():
    check_labels(None)
