"""Commands as other users, forked from a process that has finished the slow imports.

`python -m tests.helpers.forked_commands MODULE ...` imports the modules and then runs one command
per line of standard input. The process never starts a thread and never imports Prefect.
"""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from tests.helpers.repository import ROOT

KNOWN_USER, UNKNOWN_USER = 65534, 12345  # `nobody`, whose home does not exist, and no user at all
LIMIT_SECONDS = 280


@dataclass(frozen=True)
class Done:
    """The end of a command."""

    code: int
    seconds: float
    stdout: str
    stderr: str


class Commands:
    """Runs commands of one user, who can read all files but write only what is the user's own."""

    def __init__(self, user: int, modules: Sequence[str]) -> None:
        if os.geteuid() or not shutil.which("setpriv"):
            pytest.skip("needs root and setpriv, to run commands as other users")
        self.user = user
        read_all = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
        switch = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *read_all]
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [*switch, sys.executable, "-m", "tests.helpers.forked_commands", *modules],
            env=environment,
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, words: Sequence[str], environment: Mapping[str, str], folder: Path) -> Done:
        """Run `clustermix WORDS` in `folder` with exactly this environment."""
        output = folder.with_name("output")
        output.mkdir()
        for owned in (folder, output):
            os.chown(owned, self.user, self.user)
        request = [list(words), dict(environment), str(folder), str(output)]
        print(json.dumps(request), file=self._process.stdin, flush=True)
        code, seconds = json.loads(self._process.stdout.readline())
        return Done(
            code,
            seconds,
            *((output / name).read_text(errors="replace") for name in ("stdout", "stderr")),
        )

    def close(self) -> None:
        self._process.communicate()


def _serve(modules: Sequence[str]) -> None:
    for module in modules:
        import_module(module)
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    assert len(threads) - threads.count("jemalloc_bg_thd") == 1  # others would be missing in forks
    assert "prefect" not in sys.modules
    for line in sys.stdin:
        words, environment, folder, output = json.loads(line)
        started = time.monotonic()
        child = os.fork()
        if not child:
            _run(words, environment, folder, output)
        ended = 0
        while not ended and time.monotonic() < started + LIMIT_SECONDS:
            time.sleep(0.01)
            ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            os.killpg(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
        print(
            json.dumps([os.waitstatus_to_exitcode(status), time.monotonic() - started]), flush=True
        )


def _run(words: list[str], environment: dict[str, str], folder: str, output: str) -> None:
    os.setsid()
    for number, name in enumerate(("stdout", "stderr"), 1):
        os.dup2(os.open(f"{output}/{name}", os.O_WRONLY | os.O_CREAT, 0o644), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    sys.argv = ["clustermix", *words]
    code = 1
    try:
        from flows.cli.main import main

        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    atexit._run_exitfuncs()
    os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1:])
