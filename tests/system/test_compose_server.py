"""The Prefect server of compose.yaml, started here with the settings that the file gives it."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
import yaml
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.helpers.repository import ROOT

SECRETS = {
    "PREFECT_AUTH_STRING": "3f1c:of the test",
    "STORE_ACCESS_KEY": "a",
    "STORE_SECRET_KEY": "b",
}
PAGE, POOL = "http://localhost:4200", {"name": "pool", "type": "process"}


def filled(text):
    """Return `text` with the values of its variables."""
    return re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: SECRETS[found[1]], text)


@pytest.fixture(scope="module")
def service():
    return yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["prefect"]


@pytest.fixture(scope="module")
def port(service, tmp_path_factory):
    """Port of a server that was started with the service's command and environment."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("home")
    environment = {
        "PATH": os.environ["PATH"],
        **{name: filled(value) for name, value in service["environment"].items()},
        "PREFECT_HOME": str(home),
    }
    program, *words = service["command"]
    words[words.index("--host") + 1] = "127.0.0.1"
    command = [str(Path(sys.executable).with_name(program)), *words, "--port", str(port)]
    with (home / "log").open("w+") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            for _ in range(600):
                if healthy(service, port):
                    break
                assert server.poll() is None, (home / "log").read_text()
                time.sleep(0.2)
            yield port
        finally:
            os.killpg(server.pid, 9)
            server.wait()


def healthy(service, port):
    """Run the service's health check."""
    _, python, *words = service["healthcheck"]["test"]
    assert python == "python"
    words = [word.replace("localhost:4200", f"127.0.0.1:{port}") for word in words]
    return not subprocess.run([sys.executable, *words], capture_output=True, check=False).returncode


def answer(port, method, headers=(), body=None):
    """Return status and headers of the answer to a request for /api/work_pools/."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        text = None if body is None else json.dumps(body)
        connection.request(
            method, "/api/work_pools/", text, {"Content-Type": "application/json", **dict(headers)}
        )
        response = connection.getresponse()
        response.read()
        return response.status, {name.lower(): value for name, value in response.getheaders()}


def credentials(password=SECRETS["PREFECT_AUTH_STRING"]):
    return {"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"}


def test_only_the_page_of_the_server_may_read_answers(port):
    asked = {"Access-Control-Request-Method": "POST"}
    for origin in ("http://evil.example", "null", "http://localhost:4200.evil.example"):
        status, headers = answer(port, "OPTIONS", {"Origin": origin, **asked})
        assert (status, headers.get("access-control-allow-origin")) == (400, None)
    status, headers = answer(port, "OPTIONS", {"Origin": PAGE, **asked})
    assert (status, headers["access-control-allow-origin"]) == (200, PAGE)


def test_a_request_needs_the_password(port):
    assert answer(port, "POST", body=POOL)[0] == 401
    assert answer(port, "POST", {"Host": "rebind.evil.example"}, POOL)[0] == 401
    assert answer(port, "POST", credentials("wrong"), POOL)[0] == 401
    assert answer(port, "POST", credentials(), POOL)[0] == 201


def test_a_stream_needs_the_password(port):
    """Browsers send no preflight for WebSockets."""
    with connect(
        f"ws://127.0.0.1:{port}/api/events/out",
        origin="http://evil.example",
        subprotocols=["prefect"],
        proxy=None,
    ) as stream:
        stream.send(json.dumps({"type": "auth", "token": "wrong"}))
        with pytest.raises(ConnectionClosed):
            stream.recv(timeout=60)


def test_the_command_of_the_other_services_has_the_password(service):
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    password = service["environment"]["PREFECT_SERVER_API_AUTH_STRING"]
    for name in ("worker", "deploy", "clustermix"):
        assert services[name]["environment"]["PREFECT_API_AUTH_STRING"] == password, name
