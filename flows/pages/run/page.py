"""Assemble the page: words and tables as HTML, charts as JSON for the inlined scripts."""

from collections.abc import Sequence
from pathlib import Path

from data_catalog.errors import UserError
from data_catalog.format.manifest import replacing
from flows.pages.run.choices import choices
from flows.pages.run.data import read_runs
from flows.pages.run.domains import Domains, find_catalog, read_domains
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
from flows.pages.run.words import notes, summary, title
from flows.pages.shared.markup import escape_html, isolated
from flows.pages.shared.shell import assemble

_SCRIPTS = ("charts.js", "lines.js", "weights.js", "domains.js", "page.js")
SEEDS_CAPTION = (
    "Finished runs that differ in nothing but their seed: mean ± standard error over the seeds."
)
ACCURACY_CAPTION = "How often the right one of the choices is the likeliest, ± standard error."
LIVE_STATUS = '<p class="caption" id="live" role="status">Live: this page loads itself again when a run has written something new.</p>'


def write_report(runs: Sequence[Path], out: Path, catalog: Path | None = None) -> Path:
    """Write one self-contained HTML file about a run, finished or not, or a comparison of several; return its path.

    Without `catalog`, the one that the first run's config names is used if it is still there; else the page has no domains.

    Raises:
        UserError: a folder holds no run, or `catalog` no catalog.
    """
    text = render(runs, catalog)
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return out


def render(runs: Sequence[Path], catalog: Path | None = None, *, live: str | None = None) -> str:
    """The page's text.

    Args:
        live: the ETag of this state of the runs: the page asks its own server for `data`, and loads itself again if that has
            another. None: the page never asks for anything.

    Raises:
        UserError: as `write_report`.
    """
    found = read_runs(runs)
    domains, why = _domains(found, catalog)
    named = title(found)
    fields = {
        "title": escape_html(named),
        "live": LIVE_STATUS if live else "",
        "summary": "".join(f"<p>{sentence}</p>" for sentence in summary(found)),
        "notes": "".join(f"<li>{note}</li>" for note in notes(found, domains, why)),
        "runs": runs_table(found),
        "seeds": _section(
            "seeds",
            "Over seeds",
            seeds_table(found),
            SEEDS_CAPTION,
        ),
        "choices": choices(found, domains),
        "final_table": final_table(found, domains),
        "accuracy": _section(
            "accuracy",
            "Accuracy on questions",
            accuracy_table(found, domains),
            ACCURACY_CAPTION,
        ),
        "events": _section("events", "Changes and faults", events(found)),
        "configs": configs(found),
    }
    data = run_page_data(found, domains) | ({"tag": live} if live else {})
    scripts = (*_SCRIPTS, *(["live.js"] if live else []))
    return assemble(
        "flows.pages.run", scripts, title=named, fields=fields, data=data, live=live is not None
    )


def _domains(runs: Sequence[RunFolder], catalog: Path | None) -> tuple[Domains | None, str]:
    """The domains; or why there are none, as markup."""
    root = catalog or find_catalog(runs)
    if root is None:
        return None, "No catalog was given or found, so nothing is said about domains."
    try:
        return read_domains(root, runs), ""
    except UserError as error:
        if catalog is not None:
            raise
        return None, f"Nothing is said about domains: {isolated(error)}."


def _section(name: str, heading: str, content: str, caption: str = "") -> str:
    """A section with its heading; nothing if it would be empty."""
    if not content:
        return ""
    said = f'<p class="caption">{caption}</p>' if caption else ""
    return f'<section aria-labelledby="{name}-title"><h2 id="{name}-title">{heading}</h2>{said}{content}</section>'
