"""Writing in a folder that somebody else may have prepared.

A catalog, a run or a half-fetched corpus can come from a stranger. A symbolic link in it could make
a command write to any file of this user.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from data_catalog.errors import UserError


def refuse_outside_links(folder: Path) -> None:
    """Check that no symbolic link below `folder` leads outside it.

    `folder` itself may be a link. Links that stay inside are allowed.

    Raises:
        UserError: A link leads outside. The message names it.
    """
    root = os.path.realpath(folder)
    for path in _links(root):
        target = os.path.realpath(path)
        if os.path.islink(target) or not Path(target).is_relative_to(root):
            name = os.path.relpath(path, root) + ("/" if os.path.isdir(target) else "")
            raise UserError(
                f"{folder}: {name} is a symbolic link to a place outside this folder. "
                "Replace the link with what it leads to, or remove it."
            )


def _links(folder: str) -> Iterator[str]:
    """Yield the symbolic links below `folder`, without following any."""
    pending = [folder]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        yield entry.path
                    elif entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        except FileNotFoundError:  # removed by its owner meanwhile
            continue


def open_own_file(path: Path, flags: int) -> int:
    """Open or create a regular file for writing and return its descriptor.

    Nothing is truncated, and links are not followed.

    Args:
        path: The file.
        flags: Flags of `os.open`, such as `os.O_RDWR`.

    Raises:
        UserError: There is something else than a regular file at `path`.
    """
    # O_NONBLOCK: a pipe without a reader would block.
    safe = os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | safe, 0o644)
    except OSError as error:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise _not_regular(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_regular(path)
    return descriptor


def _not_regular(path: Path) -> UserError:
    kind = "a symbolic link" if path.is_symlink() else "not a regular file"
    return UserError(f"{path}: is {kind}. Remove it.")
