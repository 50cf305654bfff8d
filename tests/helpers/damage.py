"""Kinds of damage to one file, which is restored afterwards."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.commands import Ended
from tests.helpers.faults import Wrong


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _replace(path: Path) -> None:
    path.write_bytes(b"\0\xff a file of somebody else\n" * 99)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "empty": _empty,
    "truncated": _truncate,
    "flipped": _flip,
    "replaced": _replace,
}


@contextmanager
def damaged(path: Path, damage: str) -> Iterator[None]:
    """Damage a file for a block."""
    kept = path.with_name(f".{path.name}.kept")
    shutil.copy2(path, kept)
    try:
        DAMAGES[damage](path)
        yield
    finally:
        os.replace(kept, path)


def judge(
    ended: Ended, result: str, sound: tuple[Ended, str], path: Path, faults: tuple[int, ...] = (2,)
) -> None:
    """Check that a command named the damaged file, or did not need it.

    Args:
        ended: The command.
        result: What it wrote or answered.
        sound: The same command and its result without damage.
        path: The damaged file.
        faults: Exit codes of a command that names the file.
    """
    output = ended.output
    assert "Traceback" not in output, output
    assert "failed:" not in output, output
    if ended.code == 0:
        if result != sound[1]:
            raise Wrong(f"{path} is damaged, and the command succeeds with another result")
        return
    assert ended.code in faults, output
    assert path.name in output, output
    sentences = [line for line in output.splitlines() if line.startswith("clustermix: ")]
    assert len(sentences) == (ended.code == 2), output
    # What makes a folder a catalog or a run is not checked by `clustermix verify` alone.
    if ended.code == 2 and path.name not in {"catalog.json", "config.json"}:
        assert re.search("clustermix verify", sentences[0]), output
