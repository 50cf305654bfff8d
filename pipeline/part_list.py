"""Lists of parts in files, so that a call that needs thousands of parts is given one."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from data_catalog.format.accounts import Account
from data_catalog.format.manifest import fingerprint
from data_catalog.place import Folder
from pipeline.parts import Part, make_part

_LIST_FILE = "parts.json"


def list_parts(parts: Sequence[Part], folder: Folder) -> Part:
    """Return a part that names other parts. Its fingerprint depends on theirs and their order."""

    def make(out: Path) -> Account:
        # The names are relative, because the work folder may be moved.
        rows = [[os.path.relpath(str(part.place), str(folder)), part.fingerprint] for part in parts]
        (out / _LIST_FILE).write_text(json.dumps(rows), encoding="utf-8")
        return Account()

    key = fingerprint("list", [[part.name, part.fingerprint] for part in parts])
    return make_part(folder, key, make)


def listed_parts(part: Part) -> list[Part]:
    """Return the parts that `list_parts` named, without their accounts."""
    rows = json.loads(part.file(_LIST_FILE).read_text(encoding="utf-8"))
    return [Part(_follow(part.place, name), key, Account(), 0) for name, key in rows]


def _follow(folder: Folder, name: str) -> Folder:
    """Return the folder at a relative path."""
    for step in name.split("/"):
        folder = folder.parent if step == ".." else folder / step
    return folder
