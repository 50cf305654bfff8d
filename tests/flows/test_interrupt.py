"""Signals that end a command. Each test runs a process of its own."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers.repository import ROOT

pytestmark = pytest.mark.system

START = """
import signal, subprocess, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from flows.interrupt import end_on_signals, orderly_stop
with end_on_signals():
    {body}
"""
LINES = {
    signal.SIGINT: "clustermix: interrupted\n",
    signal.SIGTERM: "clustermix: terminated\n",
    signal.SIGHUP: "clustermix: terminated, because its terminal was closed\n",
}
WAIT = "print('ready', flush=True); time.sleep(60)"


def start(body):
    pipe = subprocess.PIPE
    words = [sys.executable, "-c", START.format(body=body.replace("\n", "\n    "))]
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def ended(process):
    """Return exit code, standard error and seconds."""
    started = time.monotonic()
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors, time.monotonic() - started


@pytest.mark.parametrize("number", LINES)
def test_a_signal_ends_with_one_line_and_its_own_code(number):
    process = start(WAIT)
    process.send_signal(number)
    assert ended(process)[:2] == (128 + number, LINES[number])


@pytest.mark.parametrize(
    "body",
    [
        # an exception of the clean-up replaces the interrupt
        f"try:\n    {WAIT}\nfinally:\n    raise RuntimeError('clean-up')",
        # a library turns it into a success
        f"try:\n    {WAIT}\nexcept BaseException:\n    pass",
        # a library handles the signal itself and goes on
        f"signal.signal(signal.SIGTERM, lambda *_: None)\n{WAIT}",
        # a thread fails as a consequence, and Python reports it
        "import os\n"
        "threading.Timer(0.5, lambda: 1 / 0).start()\n"
        f"try:\n    {WAIT}\nexcept BaseException:\n    time.sleep(0.7)",
        # the clean-up hangs
        f"try:\n    {WAIT}\nfinally:\n    time.sleep(60)",
        # the exit functions raise
        f"import atexit\natexit.register(lambda: 1 / 0)\n{WAIT}",
    ],
    ids=["replaced", "swallowed", "handled", "thread", "hangs", "exit-function"],
)
def test_nothing_replaces_the_end(body):
    process = start(body)
    process.send_signal(signal.SIGTERM)
    code, errors, seconds = ended(process)
    assert (code, errors) == (143, LINES[signal.SIGTERM])
    assert seconds < 10


def test_nothing_is_printed_after_the_line():
    process = start(
        "def bar():\n    while True:\n        sys.stderr.write('bar\\n')\n"
        f"threading.Thread(target=bar, daemon=True).start()\n{WAIT}"
    )
    process.send_signal(signal.SIGTERM)
    assert ended(process)[1].endswith("bar\n" + LINES[signal.SIGTERM])


def test_a_signal_during_the_shutdown_of_python_ends_with_its_code():
    process = start(
        "import atexit\nfrom flows.interrupt import finish\n"
        f"def slow():\n    {WAIT}\natexit.register(slow)\nfinish()"
    )
    process.send_signal(signal.SIGINT)
    assert ended(process)[:2] == (130, LINES[signal.SIGINT])


def test_processes_that_ignore_signals_end_with_the_command():
    sleeper = "trap '' TERM INT HUP; sleep 61 & echo $!; wait"
    process = start(
        f"child = subprocess.Popen(['bash', '-c', {sleeper!r}], stdout=subprocess.PIPE)\n"
        f"number = child.stdout.readline().decode()\nprint('ready')\nprint(number, flush=True)\n"
        "time.sleep(60)"
    )
    number = int(process.stdout.readline())
    os.kill(number, 0)
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130
    deadline = time.monotonic() + 10
    while _running(number):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _running(number):
    """Return whether a process runs. One that has ended may wait for its new parent."""
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_orderly_stop_has_no_limit_but_a_second_signal():
    body = (
        "with orderly_stop() as stop_requested:\n"
        f"    try:\n        {WAIT}\n"
        "    finally:\n"
        "        assert stop_requested()\n"
        "        time.sleep({seconds})\n"
        "        print('saved', flush=True)"
    )
    process = start(body.format(seconds=3))
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (130, "saved\n", LINES[signal.SIGINT])

    process = start(body.format(seconds=60))
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[:2] == (130, LINES[signal.SIGINT])


def test_a_signal_that_comes_twice_at_once_is_one_signal():
    process = start(
        f"with orderly_stop():\n    try:\n        {WAIT}\n    finally:\n"
        "        time.sleep(1)\n        print('saved', flush=True)"
    )
    for _ in range(2):  # as timeout(1) sends it
        process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (143, "saved\n")


def test_closed_standard_streams_change_nothing():
    for body in (f"print('unwritten')\n{WAIT}", f"sys.stderr.close()\n{WAIT}"):
        process = start(
            "print('ready', flush=True)\n" + body.replace("print('ready', flush=True); ", "")
        )
        process.stdout.close()
        process.stderr.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_a_command_in_the_background_goes_on_ignoring_ctrl_c():
    script = START.replace("default_int_handler", "SIG_IGN")
    words = [
        sys.executable,
        "-c",
        script.format(body="print('ready', flush=True); time.sleep(1.5)"),
    ]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0
