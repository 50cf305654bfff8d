"""Rows of the result: a file of JSON lines that parts append to, and the table made from it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

SHARE = "share of "  # begin of the names of values that are shown in percent


@dataclass(frozen=True)
class Part:
    """The input of a part of the script: its sizes, its time limit and the file for its rows."""

    name: str
    scale: str
    """Sizes: "cpu" or "gpu"."""
    rows: Path
    """File of JSON lines."""
    started: str
    """Begin of the run of the script, which all of its rows have."""
    seconds: float
    """Time of the part, after which its process is ended."""
    scratch: Path
    """Folder for temporary files."""
    encoder: Path | None = None
    """Folder of the encoder's weights."""
    begun: float = field(default_factory=monotonic)

    def seconds_left(self) -> float:
        """Return the time until the process of this part is ended."""
        return self.seconds - (monotonic() - self.begun)

    def record(self, measured: str, note: str = "", **values: Any) -> None:
        """Append a row.

        Args:
            measured: what was measured.
            note: its conditions, or the reason why it was not measured.
            values: numbers or words by name. In a name, `_per_s` stands for `/s`, and other
                underscores for spaces.
        """
        named = {name.replace("_per_s", "/s").replace("_", " "): v for name, v in values.items()}
        append(self.rows, self.started, self.name, measured, note, named)


def append(
    path: Path, started: str, part: str, measured: str, note: str, values: dict[str, Any]
) -> None:
    """Append a row to a file of JSON lines."""
    row = {"started": started, "part": part, "measured": measured, "values": values, "note": note}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_rows(path: Path, started: str) -> list[dict[str, Any]]:
    """Return the rows of one run of the script."""
    if not path.exists():
        return []
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row["started"] == started]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| part | measured | result | note |", "|---|---|---|---|"]
    for row in rows:
        result = ", ".join(_shown(name, value) for name, value in row["values"].items())
        cells = [row["part"], row["measured"], result, row["note"]]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, float) and name.startswith((SHARE, "MFU")):
        return f"{name} {value:.1%}"
    if isinstance(value, float):
        value = f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"
    elif isinstance(value, int):
        value = f"{value:,}"
    return f"{value} {name}" if name.endswith("/s") else f"{name} {value}"
