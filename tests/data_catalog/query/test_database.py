import shutil

import duckdb
import pytest

import data_catalog
from data_catalog import UserError
from data_catalog.format.layout import Layout
from tests.helpers.manifests import change_manifest


@pytest.fixture(scope="module")
def catalog(built):
    return data_catalog.open(built[0])


def test_all_views_exist(catalog):
    for view in ("domains", "documents", "shards", "offsets", "distributions", "accounting"):
        assert catalog.sql(f"SELECT count(*) FROM {view}").fetchall()[0][0] > 0


def test_shards_add_up_to_the_documents(catalog):
    query = """
        SELECT (SELECT sum(documents) FROM shards) = count(*),
               (SELECT sum(train_tokens + heldout_tokens) FROM shards) = sum(tokens)
        FROM documents"""
    assert catalog.sql(query).fetchall() == [(True, True)]


def test_answers_are_arrow_tables_too(catalog):
    assert catalog.sql("SELECT 1 AS one").to_arrow_table().to_pylist() == [{"one": 1}]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nothing", "query: .*nothing"),
        ("SELECT 1; SELECT 2", "query: found SELECT, SELECT"),
        ("COPY (SELECT 1) TO 'x.csv'", "query: found COPY"),
        ("SELECT * FROM read_text('/etc/hostname')", "disabled by configuration"),
        ("SELECT * FROM read_text('../source')", "disabled by configuration"),
        ("SET threads = 1", "query: found SET"),
    ],
)
def test_other_statements_and_queries_are_refused(catalog, query, message):
    with pytest.raises(UserError, match=message):
        catalog.sql(query)


def test_a_catalog_works_where_it_was_moved_to(built, tmp_path):
    moved = tmp_path / "a [strange] 'name'"
    shutil.copytree(built[0], moved)
    assert data_catalog.open(moved).sql("SELECT count(*) FROM documents").fetchall() == [(160,)]


@pytest.fixture(scope="module")
def shell(built, tmp_path_factory):
    """Open only the database file, as the DuckDB shell does, of a catalog that was moved."""
    moved = tmp_path_factory.mktemp("moved") / "an [odd] 'name'"
    shutil.copytree(built[0], moved, ignore=shutil.ignore_patterns("work"))
    with duckdb.connect(str(moved / "catalog.duckdb"), read_only=True) as connection:
        yield moved, connection


def test_the_shell_and_python_give_the_same_rows(catalog, shell, monkeypatch):
    moved, connection = shell
    monkeypatch.chdir(moved)
    views = [name for (name,) in catalog.sql("SHOW TABLES").fetchall()]
    assert [name for (name,) in connection.execute("SHOW TABLES").fetchall()] == views
    for asked in (
        *views,
        "domain_docs(4, 1)",
        "overlap('space', 'natural')",
        "nearest_domains('space', 2)",
    ):
        found = connection.execute(f"FROM {asked}")
        assert [column[0] for column in found.description] == catalog.sql(f"FROM {asked}").columns
        assert sorted(map(str, found.fetchall())) == sorted(
            map(str, catalog.sql(f"FROM {asked}").fetchall())
        )


def test_a_shell_in_another_folder_needs_the_path_of_the_catalog(shell, monkeypatch):
    moved, _ = shell
    monkeypatch.chdir(moved / "documents")
    with duckdb.connect("../catalog.duckdb", read_only=True) as connection:
        with pytest.raises(duckdb.Error, match="No files found"):
            connection.execute("FROM documents")
        connection.execute("SET file_search_path = $place", {"place": str(moved)})
        assert connection.execute("SELECT count(*) FROM documents").fetchall() == [(160,)]


def test_domain_docs_and_domain_find_the_same(catalog):
    for level, domain in ((2, 1), (4, 0), (4, 3)):
        assert (
            catalog.sql(f"FROM domain_docs({level}, {domain})").to_arrow_table().num_rows
            == catalog.domain(level, domain).num_rows
        )


def test_an_error_of_a_macro_is_a_user_error(catalog):
    with pytest.raises(UserError, match=r"level 3: .* 2, 4"):
        catalog.table("FROM domain_docs(3, 0)")
    assert catalog.table("SELECT doc_id FROM domain_docs(2, 0)").equals(
        catalog.domain(2, 0, ["doc_id"])
    )


def test_a_missing_file_is_named(built, tmp_path):
    shutil.copytree(
        built[0], tmp_path / "catalog", ignore=shutil.ignore_patterns("domains.parquet")
    )
    with pytest.raises(
        UserError,
        match=r"domains\.parquet: cannot be read \(the file is missing\)\. Run `clustermix ver",
    ):
        data_catalog.open(tmp_path / "catalog")


def test_a_file_outside_the_catalog_is_not_opened(built, tmp_path):
    shutil.copytree(built[0], tmp_path / "catalog", ignore=shutil.ignore_patterns("work"))
    name = "documents/../../../secret/x.parquet"
    change_manifest(tmp_path / "catalog", files={name: {"bytes": 1, "sha256": "0" * 64}})
    with pytest.raises(UserError, match=r"files: .*documents/\.\./\.\./\.\./secret/x\.parquet"):
        data_catalog.open(tmp_path / "catalog")


def test_files_outside_the_manifest_are_ignored(built, tmp_path):
    shutil.copytree(built[0], tmp_path / "catalog", ignore=shutil.ignore_patterns("work"))
    layout = Layout(tmp_path / "catalog")
    shutil.copy(layout.documents(0), layout.documents(0, 1))
    assert data_catalog.open(tmp_path / "catalog").sql(
        "SELECT count(*) FROM documents"
    ).fetchall() == [(160,)]


def test_a_domain_has_the_documents_that_sql_finds(catalog):
    for level in catalog.levels.granularities:
        for domain in range(level):
            leaves = catalog.levels.span(level)
            found = catalog.sql(
                f"SELECT doc_id FROM documents WHERE leaf // {leaves} = {domain}"
            ).fetchall()
            assert sorted(
                catalog.domain(level, domain, ["doc_id"])["doc_id"].to_pylist()
            ) == sorted(name for (name,) in found)


def test_every_document_read_has_its_verdict_beside_its_signals(catalog):
    assert catalog.sql(
        "SELECT reason, count(*) FROM verdicts GROUP BY ALL ORDER BY ALL"
    ).fetchall() == [("dedup.digest", 1), (None, 160)]
    assert catalog.sql("SELECT count(*) FROM signals").fetchall() == [(161,)]


def test_a_missing_version_is_refused(catalog):
    assert catalog.version == 1
    with pytest.raises(UserError, match="version 2"):
        data_catalog.open(catalog.root, version=2)
