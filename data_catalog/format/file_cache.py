"""Files of a store on the disk of this machine, kept while there is space.

All processes of a user on a machine share the cache, a folder `clustermix-UID` in the folder for
temporary files (`TMPDIR`). A file is there in full, with the size and checksum that its owner's
record names, or not at all. `CLUSTERMIX_CACHE_GB` limits the size of the cache. By default it takes
at most half of the space that is free without it.

When the cache is full, files that were not used for the longest time are removed, but none that was
used since the oldest `keeping_used_files` block that runs on this machine has begun.
"""

import hashlib
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data_catalog.errors import UserError
from data_catalog.format.damage import DamagedFileError
from data_catalog.format.manifest import FileIdentity, sha256_file
from data_catalog.place import Folder, Place
from data_catalog.temporary import (
    in_use,
    oldest_use,
    remove,
    remove_unfinished,
    replacing,
    temporary_path,
)

SCRATCH = "scratch"  # folder of unfinished work in the cache's folder
_SIZE_VARIABLE = "CLUSTERMIX_CACHE_GB"
_DAMAGED = "Copy it there again, or remove it and build again."
_CHECKS = 16  # sizes of the cache are added up this often while it fills


def cache_root() -> Path:
    """Return the cache's folder, which is made if it does not exist.

    Raises:
        UserError: The folder belongs to another user.
    """
    root = Path(tempfile.gettempdir()) / f"clustermix-{os.getuid()}"
    for folder in (root, root / SCRATCH, root / "files"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise UserError(
            f"{root}: belongs to another user. Set TMPDIR to a folder of yours on a local disk."
        )
    return root


def cache_folder_of(owner: Folder, fingerprint: str) -> Path:
    """Return the folder of the cached files of a part or a catalog in a store.

    Its name is that of the owner.

    Args:
        owner: The folder in the store.
        fingerprint: Fingerprint of the content.
    """
    digest = hashlib.sha256(f"{owner}/{fingerprint}".encode()).hexdigest()
    return cache_root() / "files" / digest[:32] / owner.name


def cached_file(path: Path, source: Place, identity: FileIdentity) -> Path:
    """Download a file of a store if it is not in the cache, and return its path there.

    Args:
        path: The path, in a folder of `cache_folder_of`.
        source: The file in the store.
        identity: Its expected size and checksum.

    Raises:
        DamagedFileError: It has another size or checksum.
        UserError: It cannot be read.
    """
    with suppress(OSError):
        if path.stat().st_size == identity.bytes:
            os.utime(path)
            return path
    _space.take(identity.bytes)
    with replacing(path) as temporary:
        try:
            source.download(temporary, identity.bytes)
        except UserError as error:
            if (size := source.size()) == identity.bytes:
                raise
            fault = "missing" if size is None else f"{size} bytes, expected {identity.bytes}"
            raise DamagedFileError(source, fault, _DAMAGED) from error
        if sha256_file(temporary) != identity.sha256:
            raise DamagedFileError(source, "checksum differs", _DAMAGED)
    return path


@contextmanager
def keeping_used_files() -> Iterator[None]:
    """Keep every cached file that is used in this block until its end."""
    with in_use(cache_root()):
        yield


@contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """Yield a new folder on the local disk, which is removed afterwards."""
    parent = cache_root() / SCRATCH
    remove_unfinished([parent])
    folder = temporary_path(parent / name)
    folder.mkdir()
    try:
        yield folder
    finally:
        remove(folder)


def unfinished_folder(owner: str) -> Path:
    """Return a folder for what an interrupted computation resumes from on this machine.

    It need not exist.

    Args:
        owner: What is computed, such as the URL of a part.
    """
    return cache_root() / "unfinished" / hashlib.sha256(owner.encode()).hexdigest()[:32]


class _Space:
    """The space that this process may fill before it adds up the size of the cache again."""

    def __init__(self) -> None:
        self._left = 0
        self._lock = threading.Lock()

    def take(self, needed: int) -> None:
        """Make space for `needed` bytes, by removing files if the cache becomes too large."""
        with self._lock:
            self._left -= needed
            if self._left < 0:
                self._left = _remove_unused(needed) // _CHECKS


_space = _Space()


def _remove_unused(needed: int) -> int:
    """Remove the files that were not used for the longest time, until `needed` bytes fit.

    Returns:
        The space that is left, in bytes.
    """
    root = cache_root()
    files = []
    for path in (root / "files").rglob("*"):
        with suppress(FileNotFoundError):  # removed by another process
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                files.append((status.st_mtime, status.st_size, path))
    held = sum(size for _, size, _ in files)
    left = _limit(root, held) - held - needed
    kept_since = oldest_use(root)
    for used, size, path in sorted(files):
        if left >= 0 or (kept_since is not None and used >= kept_since):
            break
        path.unlink(missing_ok=True)
        left += size
    return max(left, 0)


def _limit(root: Path, held: int) -> int:
    given = os.environ.get(_SIZE_VARIABLE, "")
    try:
        return int(float(given) * 1e9) if given else (shutil.disk_usage(root).free + held) // 2
    except ValueError as error:
        raise UserError(f"{_SIZE_VARIABLE}={given}: expected a number of gigabytes.") from error
