"""Text and numbers as HTML."""

import html
import json
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

# C0 and C1 controls, and lone surrogates (from undecodable file names): none may stand in an HTML file.
_INVALID_IN_HTML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def escape_html(text: Any) -> str:
    """Text from data, safe in HTML text and attributes."""
    return html.escape(_INVALID_IN_HTML.sub("\ufffd", str(text)))


def script_json(value: Any) -> str:
    """JSON that can stand inside a script element: ASCII only, and no `<` that could close the element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def isolated(text: Any) -> str:
    """A name from data: isolated, so that its writing direction does not reorder the sentence around it."""
    return f"<bdi>{escape_html(text)}</bdi>"


def short_number(value: float | None, suffix: str = "") -> str:
    """A number for a reader: 12.3M, 4,096, 0.012; a dash for None."""
    if value is None:
        return "–"
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}{suffix}"
    return (
        f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"
    ) + suffix


def percent(share: float) -> str:
    """A share for a reader: 98%, 0.4%; what rounds to nothing is said to be less than a tenth of a percent."""
    if 0 < share < 0.0005:
        return "less than 0.1%"
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{share:.1%}"


def run_swatch(run: int) -> str:
    """The square in a run's colour."""
    return f'<span class="key k{run % 8}"></span>'


class Cell(NamedTuple):
    """A table's cell that looks unlike its column."""

    content: str  # markup
    style: str  # class


def html_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str | Cell]],
    *,
    text: Collection[int] = (),
    name: str = "",
    style: str = "",
) -> str:
    """A table that scrolls in its own box where a page is too narrow; headings and cells are markup, a row's first cell its own heading.

    Args:
        text: columns that hold words, and are aligned to the left like the first.
        name: id of the table.
        style: class of the table.
    """
    kinds = ["text" if i in {0, *text} else "" for i in range(len(headings))]

    def line(row: Sequence[str | Cell]) -> str:
        first, *others = (
            cell if isinstance(cell, Cell) else Cell(cell, kind)
            for cell, kind in zip(row, kinds, strict=True)
        )
        return f'<tr><th scope="row">{first.content}</th>{"".join(f"<td{_class(kind)}>{content}</td>" for content, kind in others)}</tr>'

    head = "".join(
        f'<th scope="col"{_class(kind)}>{heading}</th>'
        for heading, kind in zip(headings, kinds, strict=True)
    )
    named = f' id="{name}"' if name else ""
    body = "".join(map(line, rows))
    return f'<div class="scroll"><table{named}{_class(style)}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
