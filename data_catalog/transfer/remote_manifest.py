"""The manifest of a catalog that comes from elsewhere: checked before a byte of it is used."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_catalog.errors import UserError
from data_catalog.format.manifest import FORMAT, MANIFEST

OPTIONAL = (
    "documents",
    "tokens",
    "signals",
    "verdicts",
)  # folders of a catalog that somebody may do without
FOLDERS = (*OPTIONAL, "targets", "tree", "tokenizer", "versions")

_PLAIN = re.compile(r"[^\x00-\x1f\x7f\\:]+")


class File(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Shipped(BaseModel):
    """What a transfer needs of a manifest."""

    model_config = ConfigDict(frozen=True, strict=True)

    format: Literal[2]
    version: Annotated[int, Field(ge=1, le=9999)]
    fingerprint: Annotated[str, Field(min_length=1)]
    granularities: tuple[Annotated[int, Field(gt=0)], ...]
    files: Mapping[str, File]
    left_out: tuple[str, ...] = ()
    text: bytes = b""  # all of it, as it came

    def checked(self, place: str) -> "Shipped":
        """Itself, if every file it names lies in one of a catalog's own folders.

        Raises:
            UserError: one does not.
        """
        for name in self.files:
            path = PurePosixPath(name)
            inside = (
                len(path.parts) > 1
                and path.parts[0] in FOLDERS
                and str(path) == name
                and ".." not in path.parts
            )
            if not inside or not _PLAIN.fullmatch(name) or path.name == MANIFEST:
                raise UserError(
                    f"{place}: its manifest names {name!r}, which is no place for a catalog's file; do not use this catalog"
                )
        return self


def version_manifest(version: int) -> str:
    """Its place below a catalog."""
    return f"versions/{version:04d}/{MANIFEST}"


def parse_shipped(text: bytes, place: str) -> Shipped:
    """A manifest's text.

    Raises:
        UserError: it is not a manifest, or of another format.
    """
    try:
        manifest = Shipped.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise UserError(
            f"{place}: {MANIFEST} there is not one of a catalog in format {FORMAT} ({where or 'JSON'}: {first['msg']}); export it again"
        ) from error
    return manifest.model_copy(update={"text": text})
