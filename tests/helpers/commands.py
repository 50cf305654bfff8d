"""Commands in forked processes, with their exit code and what they print."""

import json
import multiprocessing
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest

from tests.helpers.processes import start_server

_MODULES = (
    *("encodings.utf_8_sig", "encodings.utf_32_le", "encodings.utf_32_be", "importlib.readers"),
    *("encodings.utf_16_le", "encodings.utf_16_be", "encodings.utf_16", "encodings.utf_32"),
    *("pipeline.run", "pipeline.add", "trainer.loop", "flows.pages.run", "flows.pages.catalog"),
)


@dataclass(frozen=True)
class Ended:
    code: int
    output: str
    """Standard output and standard error."""

    def is_refused(self, *words: str) -> None:
        """Check that the command ended with one sentence, which contains `words`."""
        assert self.code == 2, self.output
        assert "Traceback" not in self.output, self.output
        assert "Errno" not in self.output, self.output
        [sentence] = [line for line in self.output.splitlines() if line.startswith("clustermix: ")]
        for word in words:
            assert word in sentence, sentence


def run_command(
    *words: str | Path, user: int | None = None, limits: Mapping[int, int] | None = None
) -> Ended:
    """Run `clustermix WORDS`, or the library's `build`, `add` and `train` without Prefect.

    Args:
        words: The command. `build CONFIG.json`, `add CATALOG CONFIG.json` and `train CONFIG.toml`
            take the config of the library.
        user: Id of the user that the process becomes.
        limits: Soft limits by resource.
    """
    start_server()
    log = Path(gettempdir()) / f"clustermix-trial-{os.getpid()}"
    log.write_bytes(b"")
    log.chmod(0o666)
    process = multiprocessing.get_context("forkserver").Process(
        target=_run, args=([str(word) for word in words], str(log), user, dict(limits or {}))
    )
    process.start()
    process.join(240)
    if process.exitcode is None:
        process.kill()
        process.join()
    output = log.read_text(errors="replace")
    log.unlink()
    assert process.exitcode is not None
    return Ended(process.exitcode, output)


def _run(words: list[str], log: str, user: int | None, limits: dict[int, int]) -> None:
    from flows.cli.failures import print_error

    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if user is not None:
        for name in _MODULES:  # the user may be unable to read Python's own files
            import_module(name)
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    for name, limit in limits.items():
        resource.setrlimit(name, (limit, resource.getrlimit(name)[1]))
    code = 1
    try:
        code = _call(words)
    except SystemExit as ending:
        code = int(ending.code or 0)
    except Exception as error:
        code = print_error(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _call(words: list[str]) -> int:
    from data_catalog.settings import parse

    match words:
        case ["build", config]:
            from pipeline.config import Build
            from pipeline.run import build

            build(parse(Build, _json(config), config))
        case ["add", root, config]:
            from pipeline.add import add
            from pipeline.config import Addition

            add(Path(root), parse(Addition, _json(config), config))
        case ["train", config]:
            from trainer.__main__ import main as train

            return train([config])
        case _:
            from flows.cli.main import main

            sys.argv = ["clustermix", *words]
            main()
    return 0


def _json(path: str) -> Any:
    return json.loads(Path(path).read_text())


class SmallDisk:
    """A file system in memory of a fixed size, mounted at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def mount(self, options: str) -> None:
        """Mount again with other options, such as `size=1m` or `ro`."""
        subprocess.run(["mount", "-o", f"remount,{options}", self.root], check=True)

    def temporaries(self) -> list[str]:
        """Return the temporary files and folders that are left."""
        names = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*"))
        return sorted(name for name in names if ".tmp" in name)


@contextmanager
def small_disk(root: Path, size: str) -> Iterator[SmallDisk]:
    """Mount a file system of `size`, such as `64k`. Without the permission, skip the test."""
    root.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "none", root]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(root)
    finally:
        with suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", "-l", root], check=True)
