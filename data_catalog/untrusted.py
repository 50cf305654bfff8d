"""Escape untrusted text, such as a domain's terms, for display as markup."""

import re
from typing import Any

# Control characters, lone surrogates, and characters that change the writing direction.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Entities are numeric where plotly does not know the name.
MARKUP = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;", "$": "&#36;"}
)
LONGEST = 80  # maximum number of characters


def escape(text: Any, longest: int = LONGEST) -> str:
    """Return `text` escaped for HTML and plotly, shortened to `longest` characters.

    Tags, entities, line breaks and formulas have no effect. Dollar signs are escaped because plotly
    passes text between two of them to MathJax, which Jupyter includes.
    """
    text = str(text)
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return UNPRINTABLE.sub("\ufffd", text).translate(MARKUP)
