"""The catalog page: one self-contained HTML file to look around in a catalog's domains."""

from flows.pages.catalog.page import write_catalog_page

__all__ = ["write_catalog_page"]
