"""Assemble the page: words and tables as HTML, everything about domains as JSON for the inlined scripts."""

from pathlib import Path

import data_catalog
from data_catalog import Catalog
from data_catalog.errors import UserError
from data_catalog.format.manifest import replacing
from flows.pages.catalog.accounts import drops_table, levels_table, stages_table, totals
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


def write_catalog_page(catalog: Path, out: Path, version: int | None = None) -> Path:
    """Write one self-contained HTML file about the catalog, `version` None: the newest; return its path.

    Raises:
        UserError: there is no finished catalog or no such version, a file of it is damaged, or `out` is a folder.
    """
    if out.is_dir():
        raise UserError(f"{out}: is a folder; give the file to write, e.g. {out / 'catalog.html'}")
    found = data_catalog.open(catalog, version)
    fields = {
        "title": escape_html(found.root.name),
        "summary": "".join(f"<p>{sentence}</p>" for sentence in _summary(found)),
        "notes": "".join(
            f"<li>{escape_html(str(warning)[:400])}</li>" for warning in found.manifest.warnings
        ),
        "levels": levels_table(found),
        "drops": drops_table(found),
        "stages": stages_table(found),
    }
    text = assemble(
        "flows.pages.catalog",
        CATALOG_SCRIPTS,
        title=f"{found.root.name}: domains",
        fields=fields,
        data=catalog_page_data(found),
    )
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return out


def _summary(catalog: Catalog) -> list[str]:
    manifest, books = catalog.manifest, totals(catalog)
    levels = " → ".join(f"{k:,}" for k in catalog.levels.granularities)
    targets = len(manifest.targets)
    model = manifest.encoder.model[:80]
    sentences = [
        f"<strong>{manifest.documents:,} documents</strong> of {short_number(manifest.tokens)} tokens in {levels} domains; "
        f"version {catalog.version}, {targets or 'no'} target{'' if targets == 1 else 's'}, embedded with {isolated(model)}."
    ]
    if books["read"]:
        share = books["dropped"] / books["read"]
        sentences.append(
            f"Of the {books['read']:,} documents that were read, {books['dropped']:,} ({share:.1%}) were dropped by a rule or as a copy, "
            f"and {books['failed']:,} failed."
        )
    return sentences
