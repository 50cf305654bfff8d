"""Exceptions, and parts of messages: a library's error in one line, and a hint for a wrong name."""

from collections.abc import Iterable
from difflib import get_close_matches

MAXIMUM_LISTED_NAMES = 20


class UserError(Exception):
    """A request cannot be carried out. The message states what was found and what to do.

    Commands print the message without a traceback and exit with code 2.
    """


class TrainingError(Exception):
    """The trainer's process failed. The message contains the last lines of its output."""


class AccountingError(Exception):
    """A stage lost or invented documents: `read != kept + dropped + failed`.

    This is always a bug, never a mistake of the user.
    """


def first_line(error: BaseException) -> str:
    """Return an error's first line without its full stop, or its type if it has no text."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200].rstrip(".")


def suggestion(name: str, known: Iterable[str], label: str = "Known names") -> str:
    """Return a sentence on a name that is not among `known`.

    Args:
        name: The unknown name.
        known: The valid names.
        label: Introduction of the list of valid names.

    Returns:
        `Did you mean NAME?` if a valid name is similar, ignoring case. Otherwise `LABEL: NAMES.`
        with at most `MAXIMUM_LISTED_NAMES` valid names.
    """
    names = list(known)
    by_lower = {other.lower(): other for other in names}
    if close := get_close_matches(name.lower(), by_lower, n=1):
        return f"Did you mean {by_lower[close[0]]}?"
    excess = len(names) - MAXIMUM_LISTED_NAMES
    more = f" and {excess:,} more" if excess > 0 else ""
    return f"{label}: {', '.join(names[:MAXIMUM_LISTED_NAMES]) or 'none'}{more}."
