"""Ask a catalog's views for rows, with errors that are sentences."""

from typing import Any

import duckdb

from data_catalog import Catalog
from data_catalog.errors import UserError


def ask(catalog: Catalog, query: str) -> list[tuple[Any, ...]]:
    """The answer to one SELECT.

    Raises:
        UserError: a view is missing, or a file behind it is damaged: files are read only while the query runs.
    """
    try:
        return catalog.sql(query).fetchall()
    except duckdb.Error as error:
        raise UserError(
            f"{catalog.root}: {error}; `clustermix verify` tells which files are damaged"
        ) from error
