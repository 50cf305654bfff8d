"""Queries over the views of a catalog, as rows."""

from typing import Any

from data_catalog import Catalog


def query_rows(catalog: Catalog, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a SELECT statement.

    Args:
        catalog: The catalog.
        query: The statement, over the views of the catalog.

    Raises:
        UserError: A view is missing, or one of its files is damaged.
    """
    columns = (column.to_pylist() for column in catalog.table(query).columns)
    return list(zip(*columns, strict=True))
