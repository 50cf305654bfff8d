import shutil

import pytest

import data_catalog
from data_catalog import UserError


@pytest.fixture(scope="module")
def catalog(built):
    return data_catalog.open(built[0])


def test_the_views_are_there(catalog):
    for view in ("domains", "documents", "shards", "offsets", "distributions", "accounting"):
        assert catalog.sql(f"SELECT count(*) FROM {view}").fetchall()[0][0] > 0


def test_shards_add_up_to_the_documents(catalog):
    query = "SELECT (SELECT sum(documents) FROM shards) = count(*), (SELECT sum(train_tokens + heldout_tokens) FROM shards) = sum(tokens)"
    assert catalog.sql(f"{query} FROM documents").fetchall() == [(True, True)]


def test_answers_are_arrow_tables_too(catalog):
    assert catalog.sql("SELECT 1 AS one").to_arrow_table().to_pylist() == [{"one": 1}]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nothing", "nothing does not exist"),
        ("SELECT 1; SELECT 2", "expected one SELECT, found SELECT, SELECT"),
        ("COPY (SELECT 1) TO 'x.csv'", "expected one SELECT, found COPY; a catalog is read-only"),
        ("SELECT * FROM read_text('/etc/hostname')", "disabled by configuration"),
        ("SELECT * FROM read_text('../source')", "disabled by configuration"),
        ("SET threads = 1", "expected one SELECT, found SET"),
    ],
)
def test_what_is_not_a_query_on_this_catalog_is_refused(catalog, query, message):
    with pytest.raises(UserError, match=message):
        catalog.sql(query)


def test_a_catalog_works_where_it_was_moved_to(built, tmp_path):
    moved = tmp_path / "a [strange] 'name'"
    shutil.copytree(built[0], moved)
    assert data_catalog.open(moved).sql("SELECT count(*) FROM documents").fetchall() == [(160,)]


def test_a_missing_file_is_named(built, tmp_path):
    shutil.copytree(built[0], tmp_path / "catalog", ignore=shutil.ignore_patterns("domains.parquet"))
    with pytest.raises(UserError, match=r"domains\.parquet cannot be read"):
        data_catalog.open(tmp_path / "catalog")
