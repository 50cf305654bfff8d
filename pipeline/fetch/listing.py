"""RedPajama-V2's listings: which files there are. Their lines come from outside and become paths, so each must have the one known form."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from data_catalog.errors import UserError

_TAG = re.compile(
    r"(?P<snapshot>[0-9]{4}-[0-9]{2})/(?P<shard>[0-9]{4})/(?P<language>[a-z]{2,3})_(?P<bucket>head|middle|tail)"
)
_SHOWN = 200


@dataclass(frozen=True)
class Tag:
    """One documents file with its side files: `SNAPSHOT/SHARD/LANG_BUCKET`."""

    snapshot: str
    shard: int
    language: str
    bucket: str

    def __str__(self) -> str:
        return f"{self.snapshot}/{self.shard:04d}/{self.language}_{self.bucket}"


@dataclass(frozen=True)
class Refused:
    """A line that names no file of the corpus."""

    line: int  # 1-based
    text: str


def read_listing(text: str) -> Iterator[Tag | Refused]:
    """Each line's tag; a line of any other form (`..`, an absolute path, a foreign character) is refused, blank ones are passed over."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not (stripped := line.strip(" \r")):
            continue
        if match := _TAG.fullmatch(stripped):
            yield Tag(match["snapshot"], int(match["shard"]), match["language"], match["bucket"])
        else:
            yield Refused(number, ascii(stripped[:_SHOWN]))


def parse_shards(text: str) -> frozenset[int]:
    """Shard numbers from `"0-9,42"`, ends included.

    Raises:
        UserError: it has another form.
    """
    numbers: set[int] = set()
    for item in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,4})(?:-([0-9]{1,4}))?\s*", item)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise UserError(
                f'shards "{text}": expected numbers and ranges between 0 and 4999, e.g. 0-9,42'
            )
        numbers.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return frozenset(numbers)
