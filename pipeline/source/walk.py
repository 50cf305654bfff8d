"""Every file below a folder or URL: those that can be read, and the others by reason."""

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.location import Place, is_file_fault

# Each name with the store's description of the file, or None for a local file.
Files = Mapping[str, Mapping[str, Any] | None]


@dataclass
class Tree:
    """The files below a root, by their names relative to it."""

    files: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)
    """Files to choose from, sorted by the parts of their names."""
    unread: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Names by the reason why they are not in `files`, a key of `pipeline.source.unread.WHY`."""
    links: set[str] = field(default_factory=set)
    """Names in `files` that are links to files, or lead nowhere."""


def walk(root: Place, *, inside: bool = False) -> Tree:
    """List every file below `root`.

    Files and folders are hidden if their names start with `.` or `_`, as in Apache Arrow. A link to
    a folder is followed if no other path leads to that folder, so that every folder is read once.
    A folder keeps its own path: links come after all real folders, in the order of their names.
    A store is listed with one request.

    Args:
        root: The folder or URL. Its own name is never hidden.
        inside: True if links to folders outside of `root` are not followed.
    """
    tree = Tree()
    if isinstance(root, Path):
        names: Iterable[tuple[str, Mapping[str, Any] | None]] = (
            (name, None) for name in _LocalWalk(root, tree, inside).names()
        )
    else:
        start = root.path.rstrip("/") + "/"
        files: dict[str, dict[str, Any]] = root.fs.find(root.path, detail=True)
        names = (
            (name.removeprefix(start), info)
            for name, info in files.items()
            if name.startswith(start)
        )
    listed = dict(names)
    for name in sorted(listed, key=_by_parts):
        if any(part.startswith((".", "_")) for part in name.split("/")):
            tree.unread["hidden"].append(name)
        else:
            tree.files[name] = listed[name]
    for left_out in tree.unread.values():
        left_out.sort(key=_by_parts)
    return tree


def _by_parts(name: str) -> list[str]:
    return name.split("/")


class _LocalWalk:
    """The walk of a local folder. Real folders come first, then folders that links lead to."""

    def __init__(self, root: Path, tree: Tree, inside: bool) -> None:
        self._root, self._unread, self._inside = root, tree.unread, inside
        self._link_names = tree.links
        self._real_root = os.path.realpath(root)
        self._folders = [""]
        self._links: list[str] = []
        self._visited: set[tuple[int, int]] = set()

    def names(self) -> Iterator[str]:
        if not os.path.isdir(self._root):
            return
        self._visit(os.stat(self._root))
        while self._folders or self._links:
            while self._folders:
                yield from self._folder(self._folders.pop())
            self._links.sort(key=_by_parts, reverse=True)
            if self._links:
                yield from self._link(self._links.pop())

    def _visit(self, status: os.stat_result) -> bool:
        """Return whether this is the first visit of a folder."""
        key = (status.st_dev, status.st_ino)
        is_first = key not in self._visited
        self._visited.add(key)
        return is_first

    def _folder(self, folder: str) -> Iterator[str]:
        try:
            with os.scandir(os.path.join(self._root, folder)) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if not is_file_fault(error, Path(self._root)):
                raise
            self._unread["unreadable_folder"].append(folder or ".")
            return
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            is_hidden = entry.name.startswith((".", "_"))
            if entry.is_symlink():
                if is_hidden:
                    yield name
                else:
                    self._links.append(name)
            elif entry.is_dir():
                if is_hidden:
                    yield from self._hidden(name)
                else:
                    self._enter(name, entry.stat)
            elif entry.is_file() or is_hidden:
                yield name
            else:
                self._unread["not_a_file"].append(name)

    def _hidden(self, name: str) -> Iterator[str]:
        """Yield every name in a hidden folder, so that they are counted."""
        for folder, folders, names in os.walk(os.path.join(self._root, name)):
            relative = os.path.relpath(folder, self._root)
            links = [inner for inner in folders if os.path.islink(os.path.join(folder, inner))]
            yield from (f"{relative}/{inner}" for inner in (*names, *links))

    def _link(self, name: str) -> Iterator[str]:
        path = os.path.join(self._root, name)
        try:
            status = os.stat(path)
        except OSError:  # it leads nowhere, or in a circle
            self._link_names.add(name)
            yield name
            return
        if stat.S_ISREG(status.st_mode):
            self._link_names.add(name)
            yield name
        elif not stat.S_ISDIR(status.st_mode):
            self._unread["not_a_file"].append(name)
        elif self._inside and not Path(os.path.realpath(path)).is_relative_to(self._real_root):
            self._unread["outside_folder"].append(name)
        else:
            self._enter(name, lambda: status)

    def _enter(self, name: str, get_status: Callable[[], os.stat_result]) -> None:
        """Walk a folder next, unless another path has led to it."""
        try:
            is_first = self._visit(get_status())
        except OSError:  # the path is too long, for example
            self._unread["unreadable_folder"].append(name)
            return
        if is_first:
            self._folders.append(name)
        else:
            self._unread["second_link"].append(name)
