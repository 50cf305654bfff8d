"""Catalogs: schemas, files, manifests, token store and DuckDB views.

The pipeline writes catalogs, and the trainer reads them.
"""

from typing import TYPE_CHECKING, Any

from data_catalog.errors import UserError

if TYPE_CHECKING:
    from data_catalog.query.database import Catalog, open

__all__ = ["Catalog", "UserError", "open"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the reader of catalogs on first use.

    `clustermix --help` then starts without importing Arrow and NumPy.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from data_catalog.query import database  # noqa: PLC0415

    return getattr(database, name)
