"""Commands that are started as from a terminal or a batch system, and interrupted at a point."""

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import psutil
import pytest

from tests.helpers.repository import ROOT

SIGNALS = pytest.mark.faults(
    "Signals",
    tried=(
        "Ctrl-C on a terminal, SIGINT, SIGTERM or SIGHUP to the process group, and SIGTERM to all "
        "processes of build, add, train, experiment, demo, fetch and eval, with and without "
        "Prefect: while they import, while Prefect's server starts, in a part, between stages, in "
        "a step, while results are written, and on a busy machine."
    ),
    expected=(
        "The command ends within seconds with one line and exit code 130, 143 or 129. It leaves no "
        "process and no temporary file. What was there before is whole, and the repeated command "
        "gives the same result as one that was not interrupted."
    ),
)
COMMAND = ("-m", "flows.cli.main")
LINES = {
    signal.SIGINT: "clustermix: interrupted",
    signal.SIGTERM: "clustermix: terminated",
    signal.SIGHUP: "clustermix: terminated, because its terminal was closed",
}
LIMIT_SECONDS = 20.0  # from the signal to the end; a quiet machine needs at most 3
START_SECONDS = 240.0
LEAVE_SECONDS = 3.0  # until the processes of an ended command are gone
# Makes standard input the controlling terminal, if it is one, and accepts Ctrl-C and SIGHUP, which
# a background job and a job of nohup ignore.
LAUNCH = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if os.isatty(0):
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Way:
    """A way to interrupt a command: Ctrl-C on its terminal, or a signal to several processes.

    They are its process group, or all processes that it has started, as systemd and Slurm do it.
    """

    number: signal.Signals
    terminal: bool = False
    everywhere: bool = False

    def __str__(self) -> str:
        if self.terminal:
            return "ctrl-c"
        return f"{'all' if self.everywhere else 'group'}-{self.number.name}"


CTRL_C = Way(signal.SIGINT, terminal=True)
GROUP_INT = Way(signal.SIGINT)
GROUP_TERM = Way(signal.SIGTERM)
GROUP_HUP = Way(signal.SIGHUP)
ALL_TERM = Way(signal.SIGTERM, everywhere=True)


class Running:
    """A command that runs in a session of its own.

    Args:
        arguments: Arguments of Python.
        folder: The current folder of the command. Temporary files are in `folder/temporary`.
        terminal: Give it a terminal. Otherwise its output goes to a pipe.
        prefect_home: Folder of Prefect's files, so that not every server makes its database.
    """

    def __init__(
        self, arguments: Sequence[str], folder: Path, terminal: bool, prefect_home: Path
    ) -> None:
        self._mark = f"CLUSTERMIX_TRIAL={uuid.uuid4()}"
        name, _, value = self._mark.partition("=")
        environment = {key: text for key, text in os.environ.items() if "PREFECT" not in key}
        environment |= {name: value, "PREFECT_HOME": str(prefect_home), "OMP_NUM_THREADS": "1"}
        self._temporary = folder / "temporary"
        self._temporary.mkdir(exist_ok=True)
        environment |= {"PYTHONPATH": str(ROOT), "TERM": "xterm", "TMPDIR": str(self._temporary)}
        self._output = bytearray()
        reader, writer = pty.openpty() if terminal else os.pipe()
        if terminal:
            termios.tcsetwinsize(writer, (24, 100))
        self._reader = reader
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", LAUNCH, *arguments],
            cwd=folder,
            env=environment,
            stdin=writer if terminal else subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            start_new_session=True,
        )
        os.close(writer)
        self._thread = Thread(target=self._read)
        self._thread.start()

    @property
    def output(self) -> str:
        return _ESCAPES.sub("", self._output.decode(errors="replace")).replace("\r", "\n")

    def wait_for(self, point: Callable[["Running"], bool]) -> None:
        """Wait until the command has reached a point."""
        started = asked = time.monotonic()
        while not point(self):
            assert self._process.poll() is None, self.output
            assert asked < started + START_SECONDS, self.output
            time.sleep(max(0.001, 3 * (time.monotonic() - asked)))  # leaves the core to others
            asked = time.monotonic()

    def interrupt(self, way: Way) -> float:
        """Interrupt the command. Return the seconds until it has ended, after checking how."""
        before, started = len(self.output), time.monotonic()
        self.send(way)
        code = self.finish(LIMIT_SECONDS)
        seconds = time.monotonic() - started
        assert code == 128 + way.number, (code, self.output)
        lines = [line.strip() for line in self.output[before:].splitlines() if line.strip()]
        assert lines[-1] == LINES[way.number], self.output
        assert self.output.count("clustermix:") == 1, self.output
        assert "Traceback" not in self.output, self.output
        if not way.terminal:  # a terminal also shows what remains of a bar
            others = [line for line in lines[:-1] if not _is_progress(line)]
            assert not others, self.output
        assert not self.left(), self.output
        assert not [path for path in self._temporary.iterdir() if "inductor" not in path.name]
        return seconds

    def send(self, way: Way) -> None:
        if way.terminal:
            os.write(self._reader, b"\x03")
        elif way.everywhere:
            for process in self.processes():
                process.send_signal(way.number)
        else:
            os.killpg(self._process.pid, way.number)

    def finish(self, seconds: float = START_SECONDS) -> int:
        """Wait for the end and return the exit code."""
        try:
            return self._process.wait(seconds)
        finally:
            self.close()

    def close(self) -> None:
        """Kill whatever still runs of an unfinished command."""
        if self._process.poll() is None:
            for process in self.processes():
                process.kill()
            self._process.wait()
        if self._thread.is_alive():
            self._thread.join(LEAVE_SECONDS)

    def processes(self) -> list[psutil.Process]:
        """Return all processes of the command, wherever they are in the tree of processes."""
        name, _, value = self._mark.partition("=")
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(name) == value:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def left(self) -> list[str]:
        """Return the command lines of processes that outlive the command. Kills them."""
        deadline = time.monotonic() + LEAVE_SECONDS
        while (running := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        lines = []
        for process in running:
            try:
                lines.append(" ".join(process.cmdline()))
                process.kill()
            except psutil.Error:
                continue
        return lines

    def handles_signals(self) -> bool:
        """Return whether the command handles SIGTERM, which Python itself does not."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return False
        handled = int(re.findall(r"SigCgt:\s*(\w+)", status)[0], 16)
        return bool(handled >> (signal.SIGTERM - 1) & 1)

    def has_mapped(self, name: str) -> bool:
        """Return whether the command has loaded a library or mapped a file with this name."""
        try:
            return name in Path(f"/proc/{self._process.pid}/maps").read_text()
        except OSError:
            return False

    def has_child(self, word: str) -> bool:
        """Return whether the command has started a process with this word in its command line."""
        try:
            children = psutil.Process(self._process.pid).children()
            return any(word in child.cmdline() for child in children)
        except psutil.Error:
            return False

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._reader, 65536)
            except OSError:  # the other end of a terminal is closed
                data = b""
            if not data:
                os.close(self._reader)
                return
            self._output += data


def _is_progress(line: str) -> bool:
    """Return whether a line is a bar, or about a stage that has ended or a training that stops."""
    stage, bar = r"\w[\w -]*: [\d,]+ of [\d,]+ in ", r"([\w ]+: +)?\d+%\|"
    return bool(re.match(f"{stage}|{bar}|Stopping: ", line))


# Points. Each is a function of a running command.


def imports(seconds: float) -> Callable[[Running], bool]:
    """The start: this time after the command handles signals, while it imports."""

    def point(running: Running) -> bool:
        if not running.handles_signals():
            return False
        time.sleep(seconds)
        return True

    return point


def server_starts(running: Running) -> bool:
    return running.has_child("flows.prefect_server")


def in_part(out: Path, stage: str) -> Callable[[Running], bool]:
    return lambda _: any(out.glob(f"work/**/{stage}/.*.tmp"))


def finished(out: Path, stage: str, parts: int) -> Callable[[Running], bool]:
    """Between two stages: this number of parts of the first one has finished."""

    def count() -> int:
        return len(list(out.glob(f"work/**/{stage}/[!.]*/part.json")))

    before = count()
    return lambda _: count() == before + parts


def publishing(out: Path) -> Callable[[Running], bool]:
    """The first file of a catalog, or of its next version, is in its place."""
    before = _places(out)
    return lambda _: _places(out) != before


def _places(out: Path) -> set[str]:
    return {
        str(path)
        for name in (
            "documents",
            "tokens",
            "tables",
            "versions",
            "targets",
            "verdicts",
            "tokenizer",
        )
        for folder in (out, out / "work" / "publish")  # a build writes it there first
        for path in (folder / name).rglob("*")
    }


def stepped(run: Path) -> Callable[[Running], bool]:
    """A training has taken a step."""
    metrics = run / "metrics.jsonl"
    return lambda _: metrics.exists() and b'"kind": "train"' in metrics.read_bytes()


def exists(path: Path) -> Callable[[Running], bool]:
    return lambda _: path.exists()


def unfinished(folder: Path) -> list[Path]:
    """Return the temporary files and folders below a folder."""
    return [path.relative_to(folder) for path in folder.rglob(".*") if ".tmp" in path.name]
