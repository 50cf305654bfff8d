"""Files during their transfer: the part on disk, and the size and content of the whole."""

import glob
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RemoteFile:
    """A server's description of a file."""

    bytes: int | None = None
    validator: str | None = None
    """Strong ETag, or else the time of the last change. It names one exact content."""
    sha256: str | None = None
    """Checksum, which the Hugging Face hub tells for large files."""


class PartialFile:
    """The part of one file that is on disk, and the description of the whole."""

    def __init__(self, path: Path, remote: RemoteFile) -> None:
        self.path, self.remote = path, remote

    @property
    def part(self) -> Path:
        """Path of the part. It names the content, so that parts of other contents are not used."""
        return self.path.with_name(f"{self.path.name}.{_content_tag(self.remote.validator)}.part")

    def held(self) -> int:
        """Return the bytes of the part that a transfer can resume from."""
        try:
            size = self.part.stat().st_size if self.remote.validator else 0
        except FileNotFoundError:
            return 0
        if self.remote.bytes is not None and size > self.remote.bytes:
            self.drop()
            return 0
        return size

    def drop(self) -> None:
        """Delete the part."""
        self.part.unlink(missing_ok=True)

    def restart(self, answer: RemoteFile) -> None:
        """Take the description of an answer that sends the whole file.

        The size and checksum of an earlier answer about the same content still hold.
        """
        same = answer.validator == self.remote.validator
        size = self.remote.bytes if same and self.remote.bytes is not None else answer.bytes
        self.remote = RemoteFile(
            size, answer.validator, answer.sha256 or (self.remote.sha256 if same else None)
        )

    def digest(self) -> "hashlib._Hash":
        """Return the SHA-256 state of the part."""
        with self.part.open("rb") as file:
            return hashlib.file_digest(file, "sha256")

    def finish(self) -> int:
        """Rename the part into place, delete parts of other contents, and return the size."""
        size = self.part.stat().st_size
        os.replace(self.part, self.path)
        for stale in self.path.parent.glob(f"{glob.escape(self.path.name)}.*.part"):
            stale.unlink(missing_ok=True)
        return size


def _content_tag(validator: str | None) -> str:
    """Return eight characters that tell contents apart. Parts without a validator never resume."""
    return hashlib.blake2b((validator or "").encode(), digest_size=4).hexdigest()
