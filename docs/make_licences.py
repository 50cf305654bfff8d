"""Write THIRD_PARTY.md: the licences that the pinned packages declare.

`make pins` runs it in an environment that holds all of them.
"""

import re
import sys
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_HEADER = """\
# Third-party packages

The packages of `constraints.txt` and the licences that their metadata declare. None of them is part
of this repository. They are installed beside clustermix, most of them only by some extras. Made by
`make pins`.

| package | version | licence |
|---|---|---|
"""
_LONGEST = 80  # some packages put the whole text of their licence into the field


def declared_licence(package: PackageMetadata) -> str:
    """Return the licence that a package declares, as an expression if it has one."""
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in package.get_all("Classifier") or ()
        if line.startswith("License :: ") and not line.endswith("OSI Approved")
    ]
    named = (package.get("License") or "").strip()
    short = named if named.count("\n") == 0 and len(named) <= _LONGEST else ""
    return package.get("License-Expression") or short or ", ".join(classifiers) or "see the package"


def page(constraints: str) -> str:
    """Return the page. Packages that are not installed here are left out."""
    rows = []
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", constraints, re.MULTILINE):
        try:
            licence = declared_licence(metadata(name)).replace("|", "/")
        except PackageNotFoundError:
            continue
        rows.append(f"| {name} | {version} | {licence} |\n")
    return _HEADER + "".join(rows)


if __name__ == "__main__":
    text = page((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    (ROOT / "THIRD_PARTY.md").write_text(text, encoding="utf-8")
    sys.stdout.write(f"THIRD_PARTY.md: {text.count(chr(10)) - _HEADER.count(chr(10))} packages\n")
