"""The line of a result that describes the machine and the date of a measurement."""

import os
import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "faiss-cpu",
    "faiss-gpu",
    "duckdb",
    "prefect",
)


def today() -> str:
    """Return the UTC date, such as 2026-11-22."""
    return datetime.now(UTC).date().isoformat()


def headline(arguments: Sequence[str] = ()) -> str:
    """Return the date, the command, the processor, its cores and the versions of main packages.

    Args:
        arguments: arguments that make this result. Default: those of the process.
    """
    processor = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        processor = next(
            (line.split(":")[1].strip() for line in file if line.startswith("model name")),
            processor,
        )
    spec = sys.modules["__main__"].__spec__  # None if a script or a debugger runs
    module = spec.name.removesuffix(".__main__") if spec else sys.argv[0]
    command = f"python -m {module} {' '.join(arguments or sys.argv[1:])}".strip()
    return (
        f"{today()} · `{command}` · {processor}, {os.cpu_count()} cores (shared, noisy) · "
        f"Python {platform.python_version()}, {_versions()}"
    )


def _versions() -> str:
    """Return the versions of the main packages that are installed."""
    found = []
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)
