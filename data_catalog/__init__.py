"""The contract between the pipeline and the trainer: schemas, layout, manifests, token store, DuckDB views."""

from data_catalog.database import Catalog, open
from data_catalog.errors import UserError

__all__ = ["Catalog", "UserError", "open"]
__version__ = "0.1.0"
