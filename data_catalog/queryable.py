"""The interface of an open catalog that figures and notebooks need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


@runtime_checkable
class Queryable(Protocol):
    """Answers SQL queries over the views and macros of a catalog."""

    def sql(
        self, query: str, parameters: Mapping[str, Any] | None = None
    ) -> duckdb.DuckDBPyRelation:
        """Prepare one SELECT. `parameters` are the values of $NAME in the query."""

    def table(self, query: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Return the result of one SELECT as an Arrow table."""


def view_names(catalog: Queryable) -> list[str]:
    """Return the names of all views in alphabetical order."""
    query = "SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY view_name"
    return list(catalog.table(query)["view_name"].to_pylist())
