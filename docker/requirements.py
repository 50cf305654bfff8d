"""Print the dependencies of extras of pyproject.toml, one per line.

Usage: `python requirements.py pyproject.toml pipeline,flows`.

An image installs them in a layer before the code is copied, so that they are not installed again
when only the code changes.
"""

import re
import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, extras: list[str]) -> list[str]:
    """Return the dependencies of the project and of `extras`, including nested extras."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    optional, packages = project["optional-dependencies"], set(project["dependencies"])
    remaining = list(extras)
    while remaining:
        extra = remaining.pop()
        if extra not in optional:
            raise SystemExit(
                f"{pyproject}: has no extra {extra}. The extras are {', '.join(optional)}."
            )
        for requirement in optional[extra]:
            own = re.fullmatch(rf"{project['name']}\[(.+)\]", requirement)
            if own:
                remaining += own[1].split(",")
            else:
                packages.add(requirement)
    return sorted(packages)


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements(Path(sys.argv[1]), sys.argv[2].split(","))) + "\n")
