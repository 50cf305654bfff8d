"""SQL on a catalog and runs never writes: every kind of statement, alone and wrapped in others."""

import hashlib
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

import data_catalog
from data_catalog import Catalog, UserError
from flows.cli.app import app
from tests.helpers.domains_catalog import write_domains_catalog
from tests.helpers.faults import Lost, Wrong
from tests.helpers.tiny_run import write_run

pytestmark = pytest.mark.faults(
    "Read-only queries",
    tried="Each of DuckDB's types of statements, alone, explained, prepared, in parentheses, in "
    "WITH, beside PIVOT and after comments, by data_catalog.open and `clustermix query`. Methods "
    "of relations that write files or views.",
    expected="What writes is refused with a sentence, and what reads is answered. Every byte of "
    "the catalog and the run stays, no file appears, and later answers are the same.",
)

PIVOT = "PIVOT (SELECT 1 AS a, 2 AS b UNION ALL SELECT 3, 4) ON a USING sum(b)"
COPY = "COPY (SELECT 'gone' AS a) TO 'HERE/catalog/catalog.json'"
IN_WITH = f"WITH x AS ({COPY}) FROM x"

# At least one statement of each type that DuckDB's parser knows, by the type.
WRITING = {
    "INSERT": ["INSERT INTO domains VALUES (1)", "WITH x AS (SELECT 1) INSERT INTO t FROM x"],
    "UPDATE": ["UPDATE domains SET tokens = 0"],
    "CREATE": [
        "CREATE TABLE t AS FROM domains",
        "CREATE OR REPLACE VIEW domains AS SELECT 1 AS level",
        "CREATE TEMP VIEW domains AS SELECT 1 AS level",
        "CREATE TEMP MACRO count(x) AS 5",
        "CREATE SCHEMA s",
        "CREATE SEQUENCE s",
        "CREATE TYPE t AS ENUM ('a')",
        "CREATE PERSISTENT SECRET s (TYPE http)",
    ],
    "DELETE": ["DELETE FROM domains", "TRUNCATE domains"],
    "PREPARE": [f"PREPARE p AS {COPY}", "PREPARE p AS SELECT 1"],
    "EXECUTE": ["EXECUTE p", "EXECUTE p(1)"],
    "ALTER": ["ALTER VIEW domains RENAME TO d", "COMMENT ON VIEW domains IS 'x'"],
    "TRANSACTION": ["BEGIN", "COMMIT", "ROLLBACK"],
    "COPY": [
        COPY,
        "COPY domains TO 'HERE/run/weights.parquet' (FORMAT parquet)",
        "COPY (FROM domains) TO 'readonly://HERE/catalog/catalog.json'",
        "COPY (FROM domains) TO 'file://HERE/catalog/catalog.json'",
        "COPY (FROM domains) TO 'HERE/new.csv'",
        "COPY (FROM domains) TO '/dev/stdout'",
        "COPY domains FROM 'HERE/catalog/catalog.json'",
    ],
    "EXPLAIN": [f"EXPLAIN {COPY}", "EXPLAIN CREATE TABLE t (a INT)", "EXPLAIN PRAGMA version"],
    "DROP": ["DROP VIEW examples", "DROP MACRO run_summary"],
    "EXPORT": ["EXPORT DATABASE 'HERE/catalog/exported'"],
    "PRAGMA": [
        "PRAGMA enable_profiling",
        "PRAGMA import_database('HERE/catalog')",
        "IMPORT DATABASE 'HERE/catalog'",
        "COPY FROM DATABASE memory TO other",
    ],
    "VACUUM": ["VACUUM", "ANALYZE"],
    "CALL": ["CALL enable_logging(storage = 'file')", "CHECKPOINT", "FORCE CHECKPOINT"],
    "SET": [
        "SET threads = 1",
        "SET VARIABLE x = 1",
        "RESET threads",
        "USE memory",
        "SET GLOBAL TimeZone = 'Asia/Tokyo'",
    ],
    "LOAD": ["LOAD json", "INSTALL httpfs"],
    "ATTACH": ["ATTACH 'HERE/catalog/new.duckdb' AS n", "ATTACH ':memory:' AS n"],
    "DETACH": ["DETACH memory"],
    "MULTI": [f"CREATE TABLE t AS {PIVOT}", f"COPY ({PIVOT}) TO 'HERE/catalog/catalog.json'"],
    "MERGE_INTO": ["MERGE INTO a USING b ON a.x = b.x WHEN MATCHED THEN DELETE"],
    "not in the Python package": ["UPDATE EXTENSIONS"],
}
# Types that no text has: they are made by the program, or parsed as another.
WITHOUT_TEXT = {
    *("INVALID", "RELATION", "EXTENSION", "LOGICAL_PLAN", "CREATE_FUNC", "ANALYZE"),
    *("VARIABLE_SET", "COPY_DATABASE"),
    "SELECT",  # see READING
}

WRAPPED = [
    *(IN_WITH, f"({IN_WITH})", f"SELECT 1 UNION ALL ({IN_WITH})", f"SELECT ({IN_WITH})"),
    *(f"FROM ({IN_WITH})", f"DESCRIBE ({IN_WITH})", f"SUMMARIZE ({IN_WITH})"),
    "WITH x AS (INSERT INTO domains VALUES (1) RETURNING *) FROM x",
    "WITH x AS (UPDATE domains SET tokens = 1 RETURNING *) FROM x",
    "WITH x AS (DELETE FROM domains RETURNING *) FROM x",
    f"WITH y AS (SELECT 1), x AS MATERIALIZED (WITH z AS ({COPY}) FROM z) FROM x",
    f"WITH x AS (\u00a0{COPY}) FROM x",
    f"WITH x AS (\u00a0{COPY}) {PIVOT}",
    f"WITH x AS (/* ) */{COPY}) {PIVOT}",
    f"PIVOT ({IN_WITH}) ON a USING count(*)",
    f"WITH x AS (COPY ({PIVOT}) TO 'HERE/catalog/catalog.json') FROM x",
    *(f"EXPLAIN ANALYZE {COPY}", f"explain/**/analyze/**/{COPY}", f"/* SELECT */ {COPY}"),
    *(f"-- SELECT 1\nEXPLAIN ANALYZE {COPY}", f";;EXPLAIN ANALYZE {COPY}", f"EXPLAIN {IN_WITH}"),
    f"EXPLAIN (ANALYZE) {COPY}",
    f"EXPLAIN (ANALYZE, FORMAT json) {COPY}",
    f"EXPLAIN (FORMAT json /* ) SELECT 1 -- */ , ANALYZE) {COPY}",
    f"EXPLAIN ANALYZE /* ) SELECT 1 -- */ {COPY}",
    f"EXPLAIN ANALYZE {IN_WITH}",
    "EXPLAIN ANALYZE CREATE OR REPLACE VIEW domains AS SELECT 1 AS level",
    "EXPLAIN ANALYZE DROP VIEW examples",
    f"EXPLAIN ANALYZE CREATE TABLE t AS {PIVOT}",
    f"SELECT 1; {COPY}",
    f"{COPY}; SELECT 1",
    f"{PIVOT}; {COPY}",
    f"FROM query($${COPY}$$)",
    f"FROM query($${IN_WITH}$$)",
    "FROM json_execute_serialized_sql(json_serialize_sql('CREATE TABLE t (a INT)'))",
    "FROM enable_logging(storage := 'file', storage_path := 'HERE/catalog')",
    "FROM enable_profiling(save_location := 'HERE/catalog/catalog.json')",
    "FROM read_text('/etc/hostname')",
    "FROM read_text('readonly:///etc/hostname')",
    "FROM read_text('readonly://HERE/catalog/../secret.txt')",
    "FROM read_text('readonly://HERE/catalog/link.txt')",
    "FROM read_text('HERE/secret.txt')",
    "FROM glob('/etc/*')",
    "FROM read_duckdb('HERE/catalog/catalog.duckdb', table_name := 'x')",
    "SELECT * FROM checkpoint_here()",
    *("", ";", "-- SELECT 1", "EXPLAIN", "SELEC 1", "SELECT 'a\ud800'"),
]

READING = [
    *("SELECT count(*) FROM domains", "FROM domains LIMIT 1", "TABLE domains", "VALUES (1), (2)"),
    *("(SELECT 1)", ";; SELECT 1; ;", "/* COPY */ SELECT 1 -- COPY", "SELECT 'COPY x TO y' AS a"),
    *("SHOW TABLES", "SHOW ALL TABLES", "DESCRIBE domains", "SUMMARIZE distributions"),
    "DESCRIBE SELECT 1",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r where n < 5) FROM r",
    "SELECT level FROM domains UNION BY NAME SELECT 1 AS level",
    *("EXPLAIN SELECT * FROM domains", "EXPLAIN ANALYZE FROM domains", "EXPLAIN (FROM domains)"),
    *("explain (analyze, format json) SELECT 1", "EXPLAIN/**/ANALYZE -- a\n(SELECT 1)"),
    *(PIVOT, f"{PIVOT};", f"FROM ({PIVOT})", f"WITH p AS ({PIVOT}) FROM p", f"DESCRIBE {PIVOT}"),
    *(f"EXPLAIN {PIVOT}", f"EXPLAIN ANALYZE {PIVOT}", f"-- COPY\n{PIVOT}"),
    "PIVOT domains ON level USING count(*)",
    "PIVOT domains ON level USING count(*) AS copies GROUP BY parent ORDER BY parent",
    'PIVOT (SELECT 1 AS a, 2 AS "copy") ON a USING sum("copy")',
    "UNPIVOT (SELECT 1 AS a, 2 AS b) ON a, b",
    "SELECT * FROM domains PIVOT (count(*) FOR level IN (2, 4))",
    "FROM query('SELECT count(*) FROM domains')",
    "FROM runs",
    "FROM weights",
    "FROM run_summary('HERE/run')",
    "SELECT size FROM read_text('readonly://HERE/catalog/catalog.json')",
    "SELECT setseed(0.5)",
    "SELECT list_transform([1, 2], lambda x: x + 1) AS a",
]
SAME = "SELECT level, domain, documents, tokens, terms FROM domains ORDER BY ALL"
NAMES = "SHOW ALL TABLES"


def checksums(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("read_only")
    write_domains_catalog(folder / "catalog")
    write_run(folder / "run")
    (folder / "secret.txt").write_text("secret")
    (folder / "catalog" / "link.txt").symlink_to(folder / "secret.txt")
    return folder


@pytest.fixture(scope="module")
def opened(place: Path) -> tuple[Catalog, list]:
    """One object for all trials: each sees what the earlier ones left behind."""
    catalog = data_catalog.open(place / "catalog", runs=[place / "run"])
    return catalog, [catalog.sql(query).fetchall() for query in (SAME, NAMES)]


@pytest.fixture(autouse=True)
def unchanged(place: Path, opened: tuple[Catalog, list], tmp_path: Path, monkeypatch):
    """Compare every byte, the folder that the trial runs in, and a later answer."""
    monkeypatch.chdir(tmp_path)
    before = checksums(place)
    yield
    if checksums(place) != before or list(tmp_path.iterdir()):
        raise Lost("a file has changed or appeared")
    catalog, answer = opened
    if catalog.sql(SAME).fetchall() != answer[0] or catalog.sql(NAMES).fetchall() != answer[1]:
        raise Wrong("a later answer differs")
    settings = "SELECT current_setting('TimeZone'), getvariable('x')"
    if catalog.sql(settings).fetchall() != [("UTC", None)]:
        raise Wrong("a setting has changed")


def refuse(opened: tuple[Catalog, list], place: Path, statement: str) -> None:
    with pytest.raises(UserError) as error:
        opened[0].table(statement.replace("HERE", str(place)))
    assert "Traceback" not in str(error.value)
    assert "secret" not in str(error.value).replace("secret.txt", "")


def test_every_type_of_statement_is_tried():
    with duckdb.connect() as connection:
        for kind, statements in WRITING.items():
            if kind in duckdb.StatementType.__members__:
                found = [connection.extract_statements(text)[0].type.name for text in statements]
                assert kind in found, f"{kind}: {found}"
    assert set(duckdb.StatementType.__members__) == (set(WRITING) | WITHOUT_TEXT) - {
        "not in the Python package"
    }


@pytest.mark.parametrize(
    "statement", [statement for statements in WRITING.values() for statement in statements]
)
def test_writing_statement(opened, place, statement):
    refuse(opened, place, statement)
    refuse(opened, place, f"EXPLAIN ANALYZE {statement}")
    refuse(opened, place, f"WITH x AS ({statement}) FROM x")


@pytest.mark.parametrize("statement", WRAPPED)
def test_wrapped_statement(opened, place, statement):
    refuse(opened, place, statement)


@pytest.mark.parametrize("statement", READING)
def test_reading_statement(opened, place, statement):
    assert opened[0].table(statement.replace("HERE", str(place))).num_rows > 0


@pytest.mark.parametrize(
    "write",
    [
        lambda found, place: found.write_parquet(f"{place}/catalog/catalog.json"),
        lambda found, place: found.to_csv(f"readonly://{place}/catalog/catalog.json"),
        lambda found, place: found.to_csv(f"{place}/new.csv"),
        lambda found, _: found.create_view("domains"),
        lambda found, _: found.to_table("t"),
        lambda found, _: found.query("v", "CREATE OR REPLACE VIEW domains AS SELECT 1 AS level"),
        lambda found, place: found.query("v", f"COPY v TO '{place}/catalog/catalog.json'"),
        lambda found, _: found.query("v", "SET GLOBAL TimeZone = 'Asia/Tokyo'"),
    ],
)
def test_method_of_a_relation(opened, place, write):
    with pytest.raises(duckdb.Error):
        write(opened[0].sql("FROM domains"), place)


def test_variables_of_the_program_are_no_tables(opened):
    secret = duckdb.sql("SELECT 'secret' AS a").to_arrow_table()
    with pytest.raises(UserError, match="secret"):
        opened[0].table("FROM secret")
    assert secret.num_rows == 1


@pytest.mark.parametrize("statement", [COPY, f"EXPLAIN ANALYZE {COPY}", IN_WITH, "DROP VIEW runs"])
def test_command(place, statement):
    arguments = ["query", f"{place}/catalog", statement.replace("HERE", str(place))]
    result = CliRunner().invoke(app, [*arguments, "--runs", f"{place}/run"])
    assert isinstance(result.exception, UserError)
    assert "read-only" in str(result.exception)
