"""Display and completion of an open catalog in notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from data_catalog.format.files import CatalogFiles
from data_catalog.queryable import Queryable, view_names
from data_catalog.untrusted import escape

if TYPE_CHECKING:
    import duckdb

_LEVELS = """
    SELECT level, count(*), sum(documents)::BIGINT, sum(tokens)::BIGINT, median(tokens)::BIGINT
    FROM domains GROUP BY level ORDER BY level"""
_HEAD = ("level", "domains", "documents", "tokens", "median tokens per domain")
_CELL_STYLE = "text-align:right; padding:2px 12px"
_MAXIMUM_NAMES = 40  # listed targets or views


class Views:
    """The views of a catalog as attributes, so that notebooks complete their names."""

    def __init__(self, catalog: Queryable) -> None:
        self._catalog = catalog

    def __iter__(self) -> Iterator[str]:
        return iter(view_names(self._catalog))

    def __dir__(self) -> list[str]:
        return list(self)

    def __getattr__(self, name: str) -> duckdb.DuckDBPyRelation:
        if name.startswith("_") or name not in set(self):
            raise AttributeError(f"view {name!r}: not found. The views are {', '.join(self)}.")
        return self._catalog.sql(f'FROM "{name}"')

    def __repr__(self) -> str:
        return f"Views({', '.join(self)})"


def describe_catalog(catalog: Queryable, files: CatalogFiles) -> str:
    """Return an HTML fragment with the version, levels, targets and views of a catalog.

    Text of the catalog is escaped.
    """
    views = view_names(catalog)
    lines = [f"<b>{escape(files.root.name)}</b>, version {files.version}"]
    if "domains" in views:
        head = "".join(f"<th style='{_CELL_STYLE}'>{name}</th>" for name in _HEAD)
        rows = "".join(f"<tr>{_cells(row)}</tr>" for row in catalog.sql(_LEVELS).fetchall())
        lines.append(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    for label, names in (("targets", list(files.manifest.targets)), ("views", views)):
        if names:
            excess = len(names) - _MAXIMUM_NAMES
            more = f" and {excess:,} more" if excess > 0 else ""
            shown = ", ".join(f"<code>{escape(name)}</code>" for name in names[:_MAXIMUM_NAMES])
            lines.append(f"{label}: {shown}{more}")
    return "".join(f"<div>{line}</div>" for line in lines)


def _cells(row: Sequence[int | None]) -> str:
    return "".join(f"<td style='{_CELL_STYLE}'>{value or 0:,}</td>" for value in row)
