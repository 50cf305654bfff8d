"""What a mistyped name may have meant: the end of a sentence for the person who typed it."""

from collections.abc import Iterable
from difflib import get_close_matches

MOST = 20  # names that a sentence lists


def suggestion(found: str, known: Iterable[str], there: str = "there") -> str:
    """`did you mean NAME?` where one of `known` is like `found`, else `THERE: ` and the known names."""
    names = list(known)
    by_lower = {name.lower(): name for name in names}
    if close := get_close_matches(found.lower(), by_lower, n=1):
        return f"did you mean {by_lower[close[0]]}?"
    more = f" and {len(names) - MOST:,} more" if len(names) > MOST else ""
    return f"{there}: {', '.join(names[:MOST]) or 'none'}{more}"
