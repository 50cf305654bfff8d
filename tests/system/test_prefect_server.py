"""The private server of a command that starts a flow, where no other one is named."""

import json
import os
import subprocess
import sys
import time
from http.client import HTTPConnection

import psutil
import pytest

from tests.helpers.repository import ROOT

# Print the port of the private server and serve until standard input ends.
SERVE = """
import os, sys

from flows.prefect_environment import prepare

prepare()
from flows.prefect_server import private_server

with private_server():
    print(os.environ["PREFECT_API_URL"], flush=True)
    sys.stdin.read()
"""
FAIL = """
from flows.prefect_environment import prepare

prepare()
from flows.prefect_server import private_server
from data_catalog.errors import UserError

try:
    with private_server():
        print("started")
except UserError as error:
    print(error)
"""


def environment(home):
    ours = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {**ours, "HOME": str(home), "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """A process in a private server's block, the server's process and its port."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        env=environment(tmp_path_factory.mktemp("home")),
        stdin=pipe,
        stdout=pipe,
        text=True,
    )
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:")
    [server] = psutil.Process(process.pid).children(recursive=True)
    yield process, server, int(url.removesuffix("/api").rpartition(":")[2])
    process.kill()
    process.communicate()


def answer(port, method, path, headers):
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, "{}" if method == "POST" else None, headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status, dict(response.getheaders())


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/api/health", {}, 200),
        ("GET", "/api/health", {"Host": "rebind.evil.example"}, 400),
        ("POST", "/api/flows/filter", JSON, 401),
        ("POST", "/api/flows/filter", {**JSON, "Authorization": "Basic Y2x1c3Rlcm1peDo="}, 401),
        ("POST", "/api/flows/filter", {**JSON, "Host": "rebind.evil.example"}, 400),
        ("GET", "/api/admin/settings", {}, 401),
        ("GET", "/", {}, 404),
    ],
)
def test_requests_without_the_password_are_refused(command, method, path, headers, status):
    assert answer(command[2], method, path, headers)[0] == status


def test_a_preflight_of_another_origin_is_refused(command):
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    status, answered = answer(command[2], "OPTIONS", "/api/flows/filter", headers)
    assert status == 400
    assert "access-control-allow-origin" not in answered


def test_an_event_stream_without_the_password_is_refused(command):
    """Browsers send no preflight for WebSockets."""
    from websockets.exceptions import ConnectionClosed, InvalidStatus
    from websockets.sync.client import connect

    address = f"ws://127.0.0.1:{command[2]}/api/events/out"
    with pytest.raises(InvalidStatus):
        connect(address, origin="http://evil.example", proxy=None)
    with connect(address, subprotocols=["prefect"], proxy=None) as socket:
        socket.send(json.dumps({"type": "auth", "token": "guessed"}))
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=60)


def test_the_password_is_on_no_command_line(command):
    _, server, _ = command
    password = server.environ()["PREFECT_SERVER_API_AUTH_STRING"]
    assert len(password) > 40
    assert password not in " ".join(server.cmdline())


def test_the_server_has_a_session_of_its_own(command):
    _, server, _ = command
    assert os.getsid(server.pid) == server.pid


def test_an_idle_server_leaves_the_cores_to_the_work(command):
    """An idle server takes 0.1 CPU seconds of ten, and one that spins takes 9."""
    _, server, _ = command
    seconds = []
    # The smallest of three windows counts, because a slow machine may still be starting the server.
    while len(seconds) < 3 and min(seconds, default=2) >= 2:
        before = sum(server.cpu_times()[:2])  # user and system
        time.sleep(10)
        seconds.append(sum(server.cpu_times()[:2]) - before)
    assert min(seconds) < 2


def test_the_server_of_a_killed_command_ends(command):
    process, server, _ = command
    process.kill()
    server.wait(timeout=60)


def test_a_server_that_cannot_start_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    database = f"sqlite+aiosqlite:///{tmp_path}/file/prefect.db"
    settings = {**environment(tmp_path), "PREFECT_SERVER_DATABASE_CONNECTION_URL": database}
    done = subprocess.run(
        [sys.executable, "-c", FAIL], env=settings, capture_output=True, text=True, check=True
    )
    assert "Prefect's server on this machine did not start: " in done.stdout
    assert "unable to open database file" in done.stdout
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stdout + done.stderr
