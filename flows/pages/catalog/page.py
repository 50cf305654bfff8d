"""Assembly of the catalog page: text and tables as HTML, domains as JSON for the scripts."""

from pathlib import Path

import data_catalog
from data_catalog import Catalog
from data_catalog.errors import UserError
from data_catalog.place import Folder, Place
from data_catalog.temporary import replacing
from flows.pages.catalog.accounts import (
    drops_table,
    levels_table,
    notes_table,
    stages_table,
    totals,
)
from flows.pages.catalog.domains import catalog_page_data
from flows.pages.shared.markup import escape_html, isolated, short_number
from flows.pages.shared.shell import assemble

CATALOG_SCRIPTS = (
    "tree.js",
    "colour.js",
    "surface.js",
    "treemap.js",
    "scatter.js",
    "heatmap.js",
    "search.js",
    "panel.js",
    "page.js",
)


def write_catalog_page(catalog: Folder, out: Folder, version: int | None = None) -> Folder:
    """Write a self-contained HTML file about a catalog, and return its place.

    Args:
        catalog: Folder of the catalog, or its place in a store.
        out: File to write, here or in a store.
        version: Version of the catalog. Default: the newest.

    Raises:
        UserError: The catalog or the version does not exist, a file is damaged, or `out` is a
            folder.
    """
    if isinstance(out, Path) and out.is_dir():
        raise UserError(
            f"{out}: is a folder. Give a file to write, for example {out / 'catalog.html'}."
        )
    opened = data_catalog.open(catalog, version)
    fields = {
        "title": escape_html(opened.root.name),
        "summary": "".join(f"<p>{sentence}</p>" for sentence in _summary(opened)),
        "notes": "".join(
            f"<li>{escape_html(str(warning)[:400])}</li>" for warning in opened.manifest.warnings
        ),
        "levels": levels_table(opened),
        "drops": drops_table(opened) + notes_table(opened),
        "stages": stages_table(opened),
    }
    text = assemble(
        "flows.pages.catalog",
        CATALOG_SCRIPTS,
        title=f"{opened.root.name}: domains",
        fields=fields,
        data=catalog_page_data(opened),
    )
    if isinstance(out, Place):
        out.write(text.encode())
        return out
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return out


def _summary(catalog: Catalog) -> list[str]:
    manifest, counts = catalog.manifest, totals(catalog)
    levels = ", ".join(f"{k:,}" for k in catalog.levels.granularities)
    targets = len(manifest.targets)
    model = manifest.encoder.model[:80]
    sentences = [
        f"<strong>{manifest.documents:,} documents</strong> with "
        f"{short_number(manifest.tokens)} tokens. Domains per level: {levels}. "
        f"Version {catalog.version}, {targets or 'no'} target{'' if targets == 1 else 's'}. "
        f"Encoder: {isolated(model)}."
    ]
    if counts["read"]:
        share = counts["dropped"] / counts["read"]
        sentences.append(
            f"Of {counts['read']:,} documents read, {counts['dropped']:,} ({share:.1%}) were "
            f"dropped by a quality rule or as duplicates, and {counts['failed']:,} failed."
        )
    return sentences
