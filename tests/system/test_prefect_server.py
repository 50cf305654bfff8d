"""The private server that a command starts where no other one is named."""

import os
import subprocess
import sys

from tests.helpers.repository import ROOT

# Print the CPU seconds that the server takes in ten seconds without work.
# Up to three windows are measured and the smallest counts, because a slow machine may still be
# starting the server during the first.
IDLE = """
import time

from flows.environment import prepare

prepare()

import psutil
from prefect.server.api.server import SubprocessASGIServer

QUIET, WINDOWS = 1, 3
with SubprocessASGIServer() as server:
    process = psutil.Process(server.server_process.pid)
    taken = lambda: sum(process.cpu_times()[:2])  # user and system
    seconds = []
    while len(seconds) < WINDOWS and min(seconds, default=QUIET) >= QUIET:
        before = taken()
        time.sleep(10)
        seconds.append(taken() - before)
print(min(seconds))
"""


def test_an_idle_server_leaves_the_cores_to_the_work(tmp_path):
    """An idle server takes 0.1 CPU seconds of ten, and one that spins takes 9."""
    ours = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    environment = {**ours, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", IDLE]
    answer = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert float(answer.stdout) < 2
