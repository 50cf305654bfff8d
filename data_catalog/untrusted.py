"""Text of others, such as a domain's terms, where something that reads markup shows it."""

import re
from typing import Any

# Controls, lone surrogates, and what changes the writing direction of the text that follows.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# By number where plotly does not know the name.
MARKUP = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;", "$": "&#36;"}
)
LONGEST = 80  # characters


def escape(text: Any, longest: int = LONGEST) -> str:
    """`text` for HTML and for plotly, which takes some HTML for markup: no tag, entity, line break or formula in it has an effect.

    Jupyter brings MathJax, which plotly gives whatever stands between two dollar signs.
    """
    text = str(text)
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return UNPRINTABLE.sub("\ufffd", text).translate(MARKUP)
