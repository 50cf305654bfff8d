"""The check that an SQL statement only reads, before it runs on a catalog."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from data_catalog.errors import UserError

if TYPE_CHECKING:
    import duckdb

# Between two words there may be comments.
_GAP = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
_EXPLAIN = re.compile(
    rf"explain\b(?:{_GAP}(?P<analyze>analyze)\b)?"
    rf"(?:{_GAP}(?P<options>\(\s*(?:analyze|format)\b[\w\s,]*\)))?",
    re.IGNORECASE | re.DOTALL,
)
_READING_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_WRITING_WORDS = {"COPY", "INSERT", "UPDATE", "DELETE", "MERGE"}  # begin a WITH clause that writes


def reading_statement(connection: duckdb.DuckDBPyConnection, query: str) -> str:
    """Return the one statement of `query`, if it is a SELECT or explains one.

    DuckDB's parser decides, and it must find a SELECT in what EXPLAIN explains too. SELECT includes
    FROM, VALUES, TABLE, PIVOT, UNPIVOT, SHOW, DESCRIBE and SUMMARIZE. Nothing is run.

    Args:
        connection: A connection, for its parser.
        query: SQL text.

    Raises:
        UserError: There are no or several statements, or one that may write.
        duckdb.Error: The syntax is wrong.
    """
    statement = _only_statement(connection, query)
    if not (head := _EXPLAIN.match(statement.query)):
        _require_select(connection, statement)
        return statement.query
    explained = _only_statement(connection, statement.query[head.end() :], "EXPLAIN ")
    _require_select(connection, explained, "EXPLAIN ")
    # Built from the statement that was checked, so that a trick in the head has no effect.
    words = ("EXPLAIN", head["analyze"], head["options"], explained.query)
    return _only_statement(connection, " ".join(filter(None, words))).query


def _only_statement(
    connection: duckdb.DuckDBPyConnection, text: str, before: str = ""
) -> duckdb.Statement:
    try:
        text.encode()
        statements = connection.extract_statements(text)
    except UnicodeEncodeError:
        raise UserError("query: contains characters that are not valid Unicode.") from None
    if len(statements) != 1:
        raise _refusal(before + (", ".join(map(_kind, statements)) or "nothing"))
    return statements[0]


def _require_select(
    connection: duckdb.DuckDBPyConnection, statement: duckdb.Statement, before: str = ""
) -> None:
    text, kind = statement.query, _kind(statement)
    if kind == "SELECT":
        # A common table expression may write, as in WITH x AS (COPY … TO …) FROM x.
        [(tree,)] = connection.execute(
            "SELECT json_serialize_sql($query::VARCHAR)", {"query": text}
        ).fetchall()
        nodes = set(re.findall(r'"type":"(\w+_NODE)"', tree))
        if not nodes:
            raise _refusal(f"{before}SELECT that cannot be checked")
        if writing := sorted(nodes - _READING_NODES):
            raise _refusal(f"{before}{writing[0].partition('_')[0]} in a WITH clause")
    elif kind == "MULTI":
        # DuckDB replaces PIVOT without IN by the creation of a temporary type and a SELECT.
        _require_pivot(connection, text, before)
    else:
        raise _refusal(before + kind)


def _require_pivot(connection: duckdb.DuckDBPyConnection, text: str, before: str) -> None:
    import duckdb  # noqa: PLC0415

    try:
        _only_statement(connection, f"FROM (\n{text.rstrip().rstrip(';')}\n)")
    except duckdb.Error:  # it cannot be read from, as CREATE TABLE … AS PIVOT
        raise _refusal(before + _first_word(text)) from None
    starts = [start for start, _ in duckdb.tokenize(text)]
    quoted = {duckdb.token_type.string_const, duckdb.token_type.comment}
    for (start, kind), end in zip(duckdb.tokenize(text), [*starts[1:], None], strict=True):
        token = text.encode()[start:end].decode()
        words = {word.upper() for word in re.findall(r"[A-Za-z_]+", token)}
        if kind not in quoted and not token.startswith('"') and words & _WRITING_WORDS:
            raise _refusal(f"{before}{sorted(words & _WRITING_WORDS)[0]} beside a PIVOT without IN")


def _kind(statement: duckdb.Statement) -> str:
    try:
        return str(statement.type.name)
    except ValueError:  # not known to DuckDB's Python package, such as UPDATE EXTENSIONS
        return _first_word(statement.query)


def _first_word(text: str) -> str:
    return next(iter(re.findall(r"\w+", text)), "nothing").upper()


def _refusal(found: str) -> UserError:
    return UserError(f"query: found {found}. Expected one SELECT, as catalogs are read-only.")
