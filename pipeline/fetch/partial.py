"""The part of a file that is here while it is on its way, and what the whole is to be."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Remote:
    """What a server says of a file."""

    bytes: int | None = None
    validator: str | None = None  # strong ETag, else time of last change: names one exact content
    sha256: str | None = None  # the hub says it of large files


class UnderWay:
    """The part of one file that is here, and what the whole is to be."""

    def __init__(self, path: Path, remote: Remote) -> None:
        self.path, self.remote = path, remote

    @property
    def part(self) -> Path:
        return self.path.with_name(f"{self.path.name}.{tag(self.remote.validator)}.part")

    def held(self) -> int:
        """Bytes of the part that can be gone on with."""
        try:
            size = self.part.stat().st_size if self.remote.validator else 0
        except FileNotFoundError:
            return 0
        if self.remote.bytes is not None and size > self.remote.bytes:
            self.drop()
            return 0
        return size

    def drop(self) -> None:
        self.part.unlink(missing_ok=True)

    def restart(self, found: Remote) -> None:
        """The whole is sent; what an earlier answer said of the same content still holds."""
        same = found.validator == self.remote.validator
        size = self.remote.bytes if same and self.remote.bytes is not None else found.bytes
        self.remote = Remote(
            size, found.validator, found.sha256 or (self.remote.sha256 if same else None)
        )

    def digest(self) -> "hashlib._Hash":
        with self.part.open("rb") as file:
            return hashlib.file_digest(file, "sha256")

    def finish(self) -> int:
        """Rename the part into place and remove parts of other contents; return the size."""
        size = self.part.stat().st_size
        os.replace(self.part, self.path)
        for stale in self.path.parent.glob(f"{self.path.name}.*.part"):
            stale.unlink(missing_ok=True)
        return size


def tag(validator: str | None) -> str:
    """Eight characters that tell one content from another; without a validator a part is never gone on with."""
    return hashlib.blake2b((validator or "").encode(), digest_size=4).hexdigest()
