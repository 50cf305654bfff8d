"""Listings of the files of RedPajama-V2.

Their lines come from outside and become paths, so each must have the one known form.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from data_catalog.errors import UserError

_TAG = re.compile(
    r"(?P<snapshot>[0-9]{4}-[0-9]{2})/(?P<shard>[0-9]{4})/"
    r"(?P<language>[a-z]{2,3})_(?P<bucket>head|middle|tail)"
)
_QUOTED_CHARACTERS = 200


@dataclass(frozen=True)
class FileTag:
    """One documents file with its side files: `SNAPSHOT/SHARD/LANG_BUCKET`."""

    snapshot: str
    shard: int
    language: str
    bucket: str

    def __str__(self) -> str:
        return f"{self.snapshot}/{self.shard:04d}/{self.language}_{self.bucket}"


@dataclass(frozen=True)
class RefusedLine:
    """A line of a listing that names no file of the corpus."""

    line: int
    """Number of the line, from 1."""
    text: str
    """Beginning of the line, in ASCII and quoted."""


def read_listing(text: str) -> Iterator[FileTag | RefusedLine]:
    """Yield the tag of each line, or a refusal of a line in any other form.

    Refused are `..`, absolute paths and foreign characters, for example. Blank lines are skipped.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if not (stripped := line.strip(" \r")):
            continue
        if match := _TAG.fullmatch(stripped):
            yield FileTag(
                match["snapshot"], int(match["shard"]), match["language"], match["bucket"]
            )
        else:
            yield RefusedLine(number, ascii(stripped[:_QUOTED_CHARACTERS]))


def parse_shards(text: str) -> frozenset[int]:
    """Return the shard numbers in a list like `0-9,42`, with the ends of ranges.

    Raises:
        UserError: The list has another form.
    """
    numbers: set[int] = set()
    for item in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,4})(?:-([0-9]{1,4}))?\s*", item)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise UserError(
                f'shards "{text}": this is not a list of shards. '
                "Expected numbers and ranges between 0 and 4999, for example 0-9,42."
            )
        numbers.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return frozenset(numbers)
