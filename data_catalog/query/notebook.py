"""What a notebook shows of an open catalog, and completes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from data_catalog.untrusted import escape

if TYPE_CHECKING:
    import duckdb

    from data_catalog.query.database import Catalog

LEVELS = """
    SELECT level, count(*), sum(documents)::BIGINT, sum(tokens)::BIGINT, median(tokens)::BIGINT
    FROM domains GROUP BY level ORDER BY level"""
HEAD = ("level", "domains", "documents", "tokens", "median tokens a domain")
CELL = "text-align:right; padding:2px 12px"
MOST_NAMES = 40  # of targets and views each


class Views:
    """The views of a catalog as attributes, so that a notebook completes their names."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __iter__(self) -> Iterator[str]:
        names = self._catalog.connection.execute(
            "SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY view_name"
        ).fetchall()
        return iter([name for (name,) in names])

    def __dir__(self) -> list[str]:
        return list(self)

    def __getattr__(self, name: str) -> duckdb.DuckDBPyRelation:
        if name.startswith("_") or name not in set(self):
            raise AttributeError(f"no view {name!r}; there are {', '.join(self)}")
        return self._catalog.sql(f'FROM "{name}"')

    def __repr__(self) -> str:
        return f"Views({', '.join(self)})"


def describe(catalog: Catalog) -> str:
    """An HTML fragment: version, levels, documents, tokens, targets and views. Text of the catalog is escaped."""
    views = list(catalog.views)
    lines = [f"<b>{escape(catalog.root.name)}</b>, version {catalog.version}"]
    if "domains" in views:
        head = "".join(f"<th style='{CELL}'>{name}</th>" for name in HEAD)
        rows = "".join(f"<tr>{_cells(row)}</tr>" for row in catalog.sql(LEVELS).fetchall())
        lines.append(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    for what, names in (
        ("targets", list(catalog.manifest.targets)),
        ("views", views),
    ):
        if names:
            more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
            lines.append(
                f"{what}: {', '.join(f'<code>{escape(name)}</code>' for name in names[:MOST_NAMES])}{more}"
            )
    return "".join(f"<div>{line}</div>" for line in lines)


def _cells(row: Sequence[int | None]) -> str:
    return "".join(f"<td style='{CELL}'>{value or 0:,}</td>" for value in row)
