"""Assembly of the run page: text and tables as HTML, charts as JSON for the inlined scripts."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from data_catalog.errors import UserError
from data_catalog.place import Folder, Place
from data_catalog.temporary import replacing
from flows.pages.run.choices import choices
from flows.pages.run.data import read_runs
from flows.pages.run.domains import Domains, find_catalog, read_domains
from flows.pages.run.notes import notes
from flows.pages.run.payload import run_page_data
from flows.pages.run.run_folder import RunFolder
from flows.pages.run.tables import (
    accuracy_table,
    configs,
    events,
    final_table,
    runs_table,
    seeds_table,
)
from flows.pages.run.words import subtitle, summary, title
from flows.pages.shared.markup import as_sentence, escape_html, isolated
from flows.pages.shared.shell import assemble

Page = TypeVar("Page", bound=Folder)
_SCRIPTS = ("lines.js", "weights.js", "domains.js", "page.js")
SEEDS_CAPTION = "Finished runs that differ only in their seed: mean ± standard error over seeds."
ACCURACY_CAPTION = (
    "Share of questions whose correct choice has the highest likelihood, ± standard error."
)
LIVE_STATUS = (
    '<p class="caption" id="live" role="status">'
    "Live: this page reloads when a run has new results.</p>"
)


def write_report(runs: Sequence[Path], out: Page, catalog: Path | None = None) -> Page:
    """Write a self-contained HTML file about one or more runs, and return its path.

    Args:
        runs: Folders of finished or unfinished runs.
        out: File to write, here or in a store.
        catalog: Catalog of the runs. Default: the first catalog that a run's config names and that
            exists. Without a catalog, the page shows no domains.

    Raises:
        UserError: A folder contains no run, or `catalog` is not a catalog.
    """
    text = render(runs, catalog)
    if isinstance(out, Place):
        out.write(text.encode())
        return out
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return out


def render(runs: Sequence[Path], catalog: Path | None = None, *, live: str | None = None) -> str:
    """Return the HTML of the page.

    Args:
        runs: Folders of runs.
        catalog: Catalog of the runs. See `write_report`.
        live: ETag of the current state of the runs. The page polls its own server and reloads when
            the ETag changes. None: the page makes no requests.

    Raises:
        UserError: A folder contains no run, or `catalog` is not a catalog.
    """
    loaded = read_runs(runs)
    domains, reason = _domains(loaded, catalog)
    page_title = title(loaded)
    fields = {
        "title": escape_html(page_title),
        "subtitle": subtitle(loaded, domains),
        "live": LIVE_STATUS if live else "",
        "summary": "".join(f"<p>{sentence}</p>" for sentence in summary(loaded)),
        "notes": "".join(f"<li>{note}</li>" for note in notes(loaded, domains, reason)),
        "runs": runs_table(loaded),
        "seeds": _section(
            "seeds",
            "Means over seeds",
            seeds_table(loaded),
            SEEDS_CAPTION,
        ),
        "choices": choices(loaded, domains),
        "final_table": final_table(loaded, domains),
        "accuracy": _section(
            "accuracy",
            "Accuracy",
            accuracy_table(loaded, domains),
            ACCURACY_CAPTION,
        ),
        "events": _section("events", "Changes and faults", events(loaded)),
        "configs": configs(loaded),
    }
    data = run_page_data(loaded, domains) | ({"tag": live} if live else {})
    scripts = (*_SCRIPTS, *(["live.js"] if live else []))
    return assemble(
        "flows.pages.run",
        scripts,
        title=page_title,
        fields=fields,
        data=data,
        shared=["charts.js"],
        live=live is not None,
    )


def _domains(runs: Sequence[RunFolder], catalog: Path | None) -> tuple[Domains | None, str]:
    """Return the domains, or None and the reason as HTML."""
    root = catalog or find_catalog(runs)
    if root is None:
        return None, "Domains are not shown because no catalog was given or found."
    try:
        return read_domains(root, runs), ""
    except UserError as error:
        if catalog is not None:
            raise
        return None, f"Domains are not shown. {isolated(as_sentence(error))}"


def _section(name: str, heading: str, content: str, caption: str = "") -> str:
    """Return a section with its heading, or nothing if it has no content."""
    if not content:
        return ""
    paragraph = f'<p class="caption">{caption}</p>' if caption else ""
    title = f'<h2 id="{name}-title">{heading}</h2>'
    return f'<section aria-labelledby="{name}-title">{title}{paragraph}{content}</section>'
