"""The contract between the pipeline and the trainer: schemas, layout, manifests, token store, DuckDB views."""

from typing import TYPE_CHECKING, Any

from data_catalog.errors import UserError

if TYPE_CHECKING:
    from data_catalog.query.database import Catalog, open

__all__ = ["Catalog", "UserError", "open"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what reads catalogs when it is first asked for: `clustermix --help` does without Arrow and NumPy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from data_catalog.query import database  # noqa: PLC0415

    return getattr(database, name)
