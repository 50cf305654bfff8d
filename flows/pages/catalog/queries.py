"""Queries over the views of a catalog, with readable errors."""

from typing import Any

import duckdb

from data_catalog import Catalog
from data_catalog.errors import UserError


def query_rows(catalog: Catalog, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a SELECT statement.

    Args:
        catalog: The catalog.
        query: The statement, over the views of the catalog.

    Raises:
        UserError: A view is missing, or one of its files is damaged.
    """
    try:
        return catalog.sql(query).fetchall()
    except duckdb.Error as error:
        raise UserError(
            f"{catalog.root}: {error}. Run `clustermix verify` to find damaged files."
        ) from error
