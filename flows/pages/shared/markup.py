"""HTML of text, numbers and tables."""

import html
import json
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

# C0 and C1 control characters, and lone surrogates from undecodable file names.
_INVALID_IN_HTML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def escape_html(text: Any) -> str:
    """Return untrusted text for use in HTML text and attributes."""
    return html.escape(_INVALID_IN_HTML.sub("\ufffd", str(text)))


def script_json(value: Any) -> str:
    """Return JSON for a script element: ASCII, without `<`, which could close the element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def as_sentence(text: Any) -> str:
    """Return text with a full stop unless it ends with a punctuation mark."""
    sentence = str(text)
    return sentence if sentence.endswith((".", "?", "!")) else f"{sentence}."


def isolated(text: Any) -> str:
    """Return an untrusted name whose writing direction does not affect the text around it."""
    return f"<bdi>{escape_html(text)}</bdi>"


def short_number(value: float | None, suffix: str = "") -> str:
    """Return a number for a reader, such as 12.3M, 4,096 or 0.012, and a dash for None."""
    if value is None:
        return "–"
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}{suffix}"
    return (
        f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"
    ) + suffix


def percent(share: float) -> str:
    """Return a share for a reader, such as 98% or 0.4%."""
    if 0 < share < 0.0005:
        return "less than 0.1%"
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{share:.1%}"


def explained(word: str, meaning: str) -> str:
    """Return a word with a tooltip, which the pointer and the keyboard open."""
    return (
        f'<abbr tabindex="0" aria-description="{escape_html(meaning)}">{escape_html(word)}</abbr>'
    )


def run_swatch(run: int) -> str:
    """Return a square in the colour of a run."""
    return f'<span class="key k{run % 8}"></span>'


class Cell(NamedTuple):
    """A table cell whose style differs from its column."""

    content: str  # HTML
    style: str  # CSS class


def html_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str | Cell]],
    *,
    text: Collection[int] = (),
    name: str = "",
    style: str = "",
) -> str:
    """Return a table that scrolls horizontally if the page is too narrow.

    Args:
        headings: HTML of the column headings.
        rows: HTML of the cells. The first cell is the heading of its row.
        text: Columns of text, which are left-aligned like the first column.
        name: Element id of the table.
        style: CSS class of the table.
    """
    styles = ["text" if i in {0, *text} else "" for i in range(len(headings))]

    def line(row: Sequence[str | Cell]) -> str:
        first, *others = (
            cell if isinstance(cell, Cell) else Cell(cell, style)
            for cell, style in zip(row, styles, strict=True)
        )
        cells = "".join(f"<td{_class(style)}>{content}</td>" for content, style in others)
        return f'<tr><th scope="row">{first.content}</th>{cells}</tr>'

    head = "".join(
        f'<th scope="col"{_class(style)}>{heading}</th>'
        for heading, style in zip(headings, styles, strict=True)
    )
    identifier = f' id="{name}"' if name else ""
    body = "".join(map(line, rows))
    content = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table{identifier}{_class(style)}>{content}</table></div>'


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
