"""The packages that some extras of pyproject.toml ask for, one a line: `python requirements.py pyproject.toml pipeline,flows`.

An image installs them in a layer before the code is copied, so that a change of the code does not install them again.
"""

import re
import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, extras: list[str]) -> list[str]:
    """The dependencies of the project and of these extras, those that extras name in turn included."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    optional, found, left = (
        project["optional-dependencies"],
        set(project["dependencies"]),
        list(extras),
    )
    while left:
        extra = left.pop()
        if extra not in optional:
            raise SystemExit(f"{pyproject}: has no extra {extra}; there: {', '.join(optional)}")
        for requirement in optional[extra]:
            own = re.fullmatch(rf"{project['name']}\[(.+)\]", requirement)
            if own:
                left += own[1].split(",")
            else:
                found.add(requirement)
    return sorted(found)


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements(Path(sys.argv[1]), sys.argv[2].split(","))) + "\n")
