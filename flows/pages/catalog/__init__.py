"""The catalog page: a self-contained HTML file for browsing the domains of a catalog."""

from flows.pages.catalog.page import write_catalog_page

__all__ = ["write_catalog_page"]
