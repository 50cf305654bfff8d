"""Ending a command on a signal: within seconds, with one line and the exit code of the signal.

Ctrl-C, SIGTERM and SIGHUP raise an exception in the main thread. It unwinds the stack, so that
partially written files are removed. Whatever becomes of that exception, the process ends with the
code of the signal. A thread ends it if the main thread has not done so after `LIMIT_SECONDS`, even
while the main thread runs C code.

This module is imported before anything else, so it imports little.
"""

import atexit
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

MESSAGES = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "terminated, because its terminal was closed",
}
LIMIT_SECONDS = 2.0  # for unwinding the stack
# Programs such as timeout(1) send a signal to a process and to its group, so that it comes twice.
REPEAT_SECONDS = 0.3
_WAKE = 0  # written to the pipe by this module, which holds the numbers of signals otherwise


class Terminated(BaseException):
    """The process received a SIGTERM or SIGHUP."""


class _Signals:
    """The signals that this process has received.

    Attributes:
        first: The first signal, or None.
        orderly_stops: Number of blocks of `orderly_stop` that the process is in.
        has_finished: The process has done its work, so that there is nothing to unwind.
    """

    def __init__(self, debug: bool) -> None:
        self.first: signal.Signals | None = None
        self.orderly_stops = 0
        self.has_finished = False
        self._debug = debug
        self._raised = False
        self._announcement = threading.Lock()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        # Python's C handler writes to the pipe at once, also for handlers that Prefect installs.
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def handle(self) -> None:
        """Handle signals from now on."""
        handled = [number for number in MESSAGES if signal.getsignal(number) != signal.SIG_IGN]
        for number in handled:  # a background job ignores Ctrl-C, and a job of nohup SIGHUP
            signal.signal(number, self._raise)
        os.register_at_fork(after_in_child=lambda: _forget(handled))
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    def receive(self, number: signal.Signals) -> None:
        """Note a signal. What the libraries print from now on is about its consequences."""
        if not self._debug:
            _discard_reports()  # first: two threads may be here
        if self.first is None:
            self.first = number

    def wake(self) -> None:
        """Make the thread look at `orderly_stops`."""
        os.write(self._writer, bytes([_WAKE]))

    def end(self) -> NoReturn:
        """End the process after its exit functions have run."""
        with suppress(BaseException):  # its reader may be gone
            sys.stdout.flush()
        self._announce()
        atexit._run_exitfuncs()
        self._end_now()

    def _raise(self, number: int, _frame: FrameType | None) -> None:
        self.receive(signal.Signals(number))
        if self.has_finished:
            self._end_now()
        if not self._raised:
            self._raised = True
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    def _watch(self) -> NoReturn:
        """End the process when the time for unwinding is over.

        An orderly stop has no limit. A second signal ends the process during it.
        """
        received = limit = 0.0  # times; none yet
        while True:
            waits = None
            if received and not self.orderly_stops:
                waits = max(limit - time.monotonic(), 0)
            if not select.select([self._reader], [], [], waits)[0]:
                self._end_now()
            for number in os.read(self._reader, 64):
                now = time.monotonic()
                if number == _WAKE:
                    limit = now + LIMIT_SECONDS
                elif number in MESSAGES and not received:
                    received, limit = now, now + LIMIT_SECONDS
                    self.receive(signal.Signals(number))
                elif number in MESSAGES and self.orderly_stops and now - received > REPEAT_SECONDS:
                    self._end_now()

    def _end_now(self) -> NoReturn:
        """End the process and all that it has started."""
        self._announce()
        for process in _descendants():
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        os._exit(128 + (self.first or 0))

    def _announce(self) -> None:
        """Print the line of the signal, once. Nothing follows it, such as a bar of a thread."""
        if self.first is None or not self._announcement.acquire(blocking=False):
            return
        line = f"clustermix: {MESSAGES[self.first]}\n".encode()
        try:
            output = os.dup(2)
            if not self._debug:
                _discard_output()
            if os.isatty(output):  # clear an unfinished line, and show the cursor that a bar hides
                line = b"\r\x1b[K\x1b[?25h" + line
            if select.select([], [output], [], LIMIT_SECONDS / 4)[1]:  # nobody may be reading it
                os.write(output, line)
        except OSError:  # the terminal is closed
            return


_signals: _Signals | None = None


@contextmanager
def end_on_signals(debug: bool = False) -> Iterator[None]:
    """End this process with one line if a signal arrives in the block, or later.

    Ends it with exit code 130 after Ctrl-C, 143 after SIGTERM and 129 after SIGHUP, together with
    all processes that it has started. Enter the block in the main thread.

    Args:
        debug: Show what libraries print after the signal.
    """
    global _signals  # noqa: PLW0603 - a process has one set of signal handlers
    is_new = _signals is None
    signals = _signals = _signals or _Signals(debug)
    signals.has_finished = False
    try:
        if is_new:  # in this block, as the first signal may come at once
            signals.handle()
        yield
    except KeyboardInterrupt:  # a library may raise it by itself
        signals.receive(signal.SIGINT)
        signals.end()
    finally:
        if signals.first is not None:
            signals.end()


def finish() -> None:
    """Note that this process has done its work. A signal during its last moments raises nothing.

    Python ends with another code if an exception is raised while it shuts down.
    """
    if _signals is not None:
        _signals.has_finished = True


def is_ending() -> bool:
    """Return whether a signal ends this process, because it is in a block of `end_on_signals`."""
    return _signals is not None and _signals.first is not None


@contextmanager
def orderly_stop() -> Iterator[Callable[[], bool]]:
    """Give the block as much time as it needs after a signal. A second signal ends the process.

    Yields:
        Function that returns whether a signal was received.
    """
    if _signals is None:  # in a Prefect worker, which handles signals itself
        yield lambda: False
        return
    signals = _signals
    signals.orderly_stops += 1
    try:
        yield lambda: signals.first is not None
    finally:
        signals.orderly_stops -= 1
        signals.wake()


def _forget(handled: list[signal.Signals]) -> None:
    """Restore the default handlers in a forked process, whose signals are not those of this one."""
    signal.set_wakeup_fd(-1)
    for number in handled:
        is_interrupt = number == signal.SIGINT
        signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)


def _discard_reports() -> None:
    """Discard log records, and exceptions that Python would report outside of the main thread."""
    sys.excepthook = lambda *_: None
    sys.unraisablehook = lambda _: None
    threading.excepthook = lambda _: None
    logging = sys.modules.get("logging")
    with suppress(AttributeError):  # the signal came while it was imported, or before
        logging.disable(logging.CRITICAL)  # type: ignore[union-attr]
        logging.raiseExceptions = False  # type: ignore[union-attr]


def _discard_output() -> None:
    """Discard all that this process prints from now on."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)


def _descendants() -> list[int]:
    """Return the ids of all processes that this one has started, and those that they have started.

    Empty on systems without /proc.
    """
    children: dict[int, list[int]] = {}
    for name in filter(str.isdecimal, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(name))
    found = [os.getpid()]
    for process in found:  # the list grows
        found += children.get(process, [])
    return found[1:]
