"""Assemble the page: words and tables as HTML, charts as JSON for the inlined scripts. Nothing in it reaches for the network."""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from data_catalog.manifest import replacing
from data_catalog.mixture import effective_number
from flows.report.charts import basis_label, payload
from flows.report.data import Run, read_runs, summarise
from flows.report.domains import Domains, drawn, final_mix, find_catalog, read_domains

# C0 and C1 controls, and lone surrogates (from undecodable file names): none may stand in an HTML file.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def write_report(runs: Sequence[Path], out: Path, catalog: Path | None = None) -> Path:
    """Write one self-contained HTML file about a run, finished or not, or a comparison of several; return its path.

    Without `catalog`, the one that the first run's config names is used if it is still there; else the page has no domains.

    Raises:
        UserError: a folder holds no run, or no catalog, or the catalog is not the one that a run drew from.
    """
    found = read_runs(runs)
    root = catalog or find_catalog(found)
    level = next((run.about["level"] for run in found if run.about.get("level")), None)
    domains = None if root is None else read_domains(root, level)
    style, scripts = _asset("style.css"), [_asset("charts.js"), _asset("page.js")]
    fields = {
        "policy": _policy(style, scripts),
        "title": escape(" · ".join(run.label for run in found)),
        "style": style,
        "summary": "".join(f"<p>{sentence}</p>" for sentence in _summary(found, domains)),
        "notes": "".join(f"<li>{note}</li>" for note in _notes(found, domains)),
        "runs": _runs_table(found),
        "configs": "".join(_config(run) for run in found),
        "data": embed(payload(found, domains)),
        "charts": scripts[0],
        "page": scripts[1],
    }
    # One pass over the template: text from data is never searched for placeholders.
    text = re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], _asset("page.html"))
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return out


def escape(text: Any) -> str:
    """Text from data, safe in HTML text and attributes."""
    return html.escape(UNPRINTABLE.sub("\ufffd", str(text)))


def embed(value: Any) -> str:
    """JSON that can stand inside a script element: ASCII only, and no `<` that could close the element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return files("flows.report").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, scripts: Sequence[str]) -> str:
    """A content security policy: no network at all, and only exactly these scripts and this style."""
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in (style, *scripts)]
    allowed = {
        "style-src": hashes[0],
        "script-src": " ".join(hashes[1:]),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(["default-src 'none'", *(f"{key} {value}" for key, value in allowed.items())])


def _name(text: str) -> str:
    """A name from data: isolated, so that its writing direction does not reorder the sentence around it."""
    return f"<bdi>{escape(text)}</bdi>"


def short(value: float | None, suffix: str = "") -> str:
    """A number for a reader: 12.3M, 4,096, 0.012; a dash for None."""
    if value is None:
        return "–"
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}{suffix}"
    return (f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}") + suffix


def _summary(runs: Sequence[Run], domains: Domains | None) -> list[str]:
    rows = [summarise(run) for run in runs]
    sentences = [_ranking(target, [row for row in rows if row["target"] == target]) for target in dict.fromkeys(r["target"] for r in rows)]
    choices = [_choice(run, domains) for run in runs if len(run.basis) > 1]
    return [sentence for sentence in (*sentences, *choices) if sentence]


def _ranking(target: str, rows: Sequence[dict[str, Any]]) -> str:
    """Who has the lowest loss on one target, by how much, after how many tokens."""
    key = "target_test_loss" if all(row["target_test_loss"] is not None for row in rows) else "target_validation_loss"
    split = "test" if key == "target_test_loss" else "validation"
    known = sorted((row for row in rows if row[key] is not None), key=lambda row: row[key])
    if not known:
        return f"No held-out loss on the target {_name(target)} has been measured yet."
    best, *others = known
    words = f"<strong>{_name(best['run'])}</strong> (mixer {_name(best['mixer'])}) "
    where = f"on the {split} text of the target {_name(target)} after {short(best['tokens'])} tokens"
    loss = f"<strong>{best[key]:.3f} nats per token</strong> {where}"
    if not others:
        return f"{words}reaches a loss of {loss}."
    gap = others[0][key] - best[key]
    if gap < 0.0005:  # not visible in what the page prints
        return f"{words}and {_name(others[0]['run'])} have the same lowest loss, {loss}."
    words += f"has the lowest loss, {loss}: {gap:.3f} ({gap / others[0][key]:.1%}) below the next, {_name(others[0]['run'])}"
    return words + (f", and {others[-1][key] - best[key]:.3f} below the last, {_name(others[-1]['run'])}." if len(others) > 1 else ".")


def _choice(run: Run, domains: Domains | None) -> str:
    """What a mixer chose in the end, in words."""
    if run.weights is None:
        return f"{_name(run.label)} has not written any weights yet."
    last = run.weights.sampling[-1]
    top = [i for i in (-last).argsort(kind="stable")[:4] if last[i] >= 0.01] or [int(last.argmax())]
    parts = ", ".join(f"{last[i]:.0%} {_name(basis_label(run, int(i), domains))}" for i in top)
    spread = f"(effective number {effective_number(last):.1f} of {len(last)})"
    words = f"{_name(run.label)} {'ended' if run.final else 'is now'} with {parts} {spread}"
    mix = None if domains is None else final_mix(run, domains)
    if domains is None or mix is None or (run.config.get("mixture") or {}).get("basis") == "domains":
        return words + "."
    largest = (-mix).argsort(kind="stable")[:3]
    return f"{words}; its largest domains: " + ", ".join(f"{mix[d]:.1%} {_name(domains.name(int(d), 4))}" for d in largest) + "."


def _notes(runs: Sequence[Run], domains: Domains | None) -> list[str]:
    """What a reader must know before comparing."""
    notes = [f"{_name(run.label)} has not finished: its numbers are the last it wrote." for run in runs if run.final is None]
    notes += [
        f"{_name(run.label)}: {run.unreadable} lines of metrics.jsonl could not be read and are left out." for run in runs if run.unreadable
    ]
    diverged = {run.label: sum(not math.isfinite(record["loss"]) for record in run.of_kind("eval")) for run in runs}
    notes += [f"{_name(label)}: {n} held-out losses are not finite and are left out." for label, n in diverged.items() if n]
    tokens = [row["tokens"] for row in map(summarise, runs) if row["tokens"]]
    if tokens and max(tokens) > 1.01 * min(tokens):
        notes.append(
            f"The runs saw different amounts of text ({short(min(tokens))} to {short(max(tokens))} tokens): compare curves, not ends."
        )
    if len({run.target for run in runs}) > 1:
        notes.append("The runs have different targets: losses of different targets cannot be compared.")
    catalogs = {run.about.get("catalog") for run in runs}
    if len(catalogs) > 1:
        notes.append("The runs were trained on different catalogs: their held-out texts, tokenizers and domains may differ.")
    elif domains is not None and domains.fingerprint and None not in catalogs and domains.fingerprint not in catalogs:
        notes.append("The catalog shown here is not the one the runs were trained on: its fingerprint differs.")
    if domains is None:
        notes.append("No catalog was given or found, so nothing is said about domains.")
    elif all(drawn(run, domains) is None for run in runs):
        notes.append("No run has written yet what it drew of each domain.")
    if len(runs) > 1:
        notes.append("Each line is one run: how much it would vary with another seed is only known where several seeds are shown.")
    return notes


HEADINGS = {
    "run": "Run", "mixer": "Mixer", "target_validation_loss": "Target loss, validation", "target_test_loss": "Target loss, test",
    "general_loss": "General loss", "tokens": "Tokens", "repeats": "Repeats", "seconds": "Seconds", "scoring_share": "Scoring",
}  # fmt: skip


def _runs_table(runs: Sequence[Run]) -> str:
    rows = [summarise(run) for run in runs]
    least = {key: min((row[key] for row in rows if row[key] is not None), default=None) for key in HEADINGS if key.endswith("_loss")}
    same_target = len({row["target"] for row in rows}) == 1 and len(rows) > 1
    lines = []
    for i, row in enumerate(rows):
        cells = [f'<th scope="row"><span class="key k{i % 8}"></span>{_name(row["run"])}</th>', f"<td>{_name(row['mixer'])}</td>"]
        for key in list(HEADINGS)[2:]:
            value = row[key]
            best = ' class="best"' if same_target and value is not None and value == least.get(key) else ""
            cells.append(f"<td{best}>{_cell(key, value)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f'<th scope="col">{text}</th>' for text in HEADINGS.values())
    return f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    if key.endswith("_loss"):
        return f"{value:.3f}"
    if key == "scoring_share":
        return f"{value:.1%}"
    return f"{value:.2f}×" if key == "repeats" else short(value)


def _config(run: Run) -> str:
    text = json.dumps({key: value for key, value in run.about.items() if key != "basis"}, indent=2, sort_keys=True, ensure_ascii=False)
    return f"<details><summary>{_name(run.label)}</summary><pre>{escape(text)}</pre></details>"
