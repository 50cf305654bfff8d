"""Cut a long text into pieces at the ends of paragraphs, sentences, lines or words."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from pipeline.source.documents import Fault

# Where a piece may end, the best place first: paragraphs, sentences, lines, words.
_ENDS = tuple(map(re.compile, (r"\n\s*\n", r"[.!?…][\"')\]”’»]*\s|[。！？]", r"\n", r"\s")))
_SPACE = _ENDS[-1]


def cut_text(blocks: Iterable[str | Fault], label: str, maximum: int) -> Iterator[str | Fault]:
    """Yield the pieces of a text that comes in blocks.

    A piece ends at the last end of a paragraph in its second half, or else of a sentence, a line
    or a word. A stretch of more than `maximum` characters without white space is left out, as a
    fault. A fault among the blocks ends the text.

    Args:
        blocks: The text.
        label: Name of the file, for faults.
        maximum: Maximum characters of a piece.
    """
    text, number, unbroken, has_output = "", 0, 0, False
    for block in chain(blocks, (None,)):
        if isinstance(block, Fault):
            yield block  # the current piece is incomplete and is left out
            return
        text += block or ""
        while text:
            if unbroken:
                space = _SPACE.search(text)
                unbroken += space.start() if space else len(text)
                text = text[space.end() :] if space else ""
                if not space:
                    break
                yield _unbroken(label, number, unbroken, maximum)
                unbroken, has_output = 0, True
            if len(text) <= 2 * maximum and block is not None:
                break  # the lengths of the last pieces depend on where the text ends
            end = (
                len(text)
                if len(text) <= maximum
                else _piece_end(text, min(maximum, len(text) * 5 // 8), maximum)
            )
            if end and text[:end].strip():
                yield text[:end].strip("\n").rstrip()
                number, has_output = number + 1, True
            unbroken, end = (0, end) if end else (maximum, maximum)
            text = text[end:]
    if unbroken:
        yield _unbroken(label, number, unbroken, maximum)
    elif not has_output:
        yield Fault(label, None, "empty_text", "the file holds nothing but white space")


def _piece_end(text: str, preferred: int, maximum: int) -> int:
    """Return where to cut: at most at `preferred` if possible, else at most at `maximum`.

    Return 0 if there is no white space.
    """
    for pattern, first in (*((pattern, preferred // 2) for pattern in _ENDS), (_SPACE, 0)):
        matches = pattern.finditer(text, first, preferred)
        if end := max((match.end() for match in matches), default=0):
            return end
    late = _SPACE.search(text, preferred, maximum)
    return late.end() if late else 0


def _unbroken(label: str, number: int, length: int, maximum: int) -> Fault:
    detail = (
        f"{length} characters without white space after piece {number}, "
        f"the limit is {maximum} (source.piece_characters); left out"
    )
    return Fault(label, number, "no_white_space", detail, characters=length)
