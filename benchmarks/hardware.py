"""What a result says of the machine and the moment it was measured on."""

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def headline() -> str:
    """Date, command, processor, cores, and the versions that numbers depend on."""
    processor = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        processor = next(
            (line.split(":")[1].strip() for line in file if line.startswith("model name")),
            processor,
        )
    parts = ", ".join(
        f"{name} {version(name)}"
        for name in ("torch", "sentence-transformers", "faiss-cpu", "duckdb", "prefect")
    )
    command = f"python -m {sys.modules['__main__'].__spec__.name} {' '.join(sys.argv[1:])}".strip()  # type: ignore[union-attr]
    return f"{today()} · `{command}` · {processor}, {os.cpu_count()} cores (shared, noisy) · Python {platform.python_version()}, {parts}"
