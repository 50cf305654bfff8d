"""The live page of runs: real requests, and a real browser that reloads it."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from data_catalog.errors import UserError
from flows.pages.serve import open_server
from tests.helpers.browser import needs_browser, opened, text
from tests.helpers.repository import ROOT
from tests.helpers.tiny_run import add_records, write_run


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[int]:
    """Run the server in a thread and yield its port."""
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(
    port: int, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read().decode()
    connection.close()
    return found


def test_the_page_and_its_tag_follow_the_files_of_the_runs(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", usage=None)
    with running(open_server([folder], 0)) as port:
        status, headers, text = ask(port, "/")
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "nats per token" in text
        assert "connect-src 'self'" in text
        tag = headers["ETag"]
        assert ask(port, "/data", If_None_Match=tag)[::2] == (304, "")
        assert json.loads(ask(port, "/data")[2]) == {"tag": tag}
        assert ask(port, "/")[1]["ETag"] == tag
        add_records(
            folder,
            {
                "kind": "eval",
                "step": 60,
                "tokens": 24_000,
                "set": "target/validation",
                "loss": 1.234,
            },
        )
        status, headers, _ = ask(port, "/data", If_None_Match=tag)
        assert (status, headers["ETag"] != tag) == (200, True)
        assert "1.234" in ask(port, "/")[2]


def test_only_the_page_and_its_data_are_served(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    with running(open_server([folder], 0)) as port:
        for path in (
            "/config.json",
            "/../a/config.json",
            "//etc/passwd",
            "/%2e%2e/a/config.json",
            f"{folder}/config.json",
            "/data/",
            "/?x",
        ):
            assert ask(port, path)[0] == 404
        assert ask(port, "/", "POST")[0] == 501
        assert ask(port, "/", "HEAD")[::2] == (200, "")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost.evil.example:{port}",
        "",
    ],
)
def test_a_request_with_a_foreign_host_name_is_refused(tmp_path: Path, host: str) -> None:
    with running(open_server([write_run(tmp_path / "a")], 0)) as port:
        for path in ("/", "/data"):
            status, _, text = ask(port, path, Host=host.format(port=port))
            assert (status, "nats" in text, "tag" in text) == (403, False, False)
        assert ask(port, "/", Host=f"localhost:{port}")[0] == 200


def test_the_server_listens_on_the_loopback_interface_only(tmp_path: Path) -> None:
    server = open_server([write_run(tmp_path / "a")], 0)
    assert server.socket.getsockname()[0] == "127.0.0.1"
    server.server_close()


def test_a_deleted_run_is_reported_on_the_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "<b>a")
    with running(open_server([folder], 0)) as port:
        (folder / "config.json").unlink()
        status, _, text = ask(port, "/")
        assert (status, "config.json" in text, "<b>" in text) == (503, True, False)


def test_a_missing_run_or_a_used_port_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        open_server([tmp_path], 0)
    folder = write_run(tmp_path / "a")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match=r"port \d+:"):
            open_server([folder], taken.getsockname()[1])
    with pytest.raises(UserError, match="port 70000:"):
        open_server([folder], 70_000)


@pytest.mark.system
def test_ctrl_c_stops_the_server_without_a_traceback(tmp_path: Path) -> None:
    code = (
        "import signal, sys; from flows.cli.main import main;"
        # Background jobs of a shell without job control ignore Ctrl-C.
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "sys.argv = ['clustermix', 'serve', sys.argv[1], '--port', '0']; main()"
    )
    root = ROOT
    command = [sys.executable, "-c", code, str(write_run(tmp_path / "a"))]
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())[1])
        assert ask(port, "/data")[0] == 200
        process.send_signal(signal.SIGINT)
        try:
            rest, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, rest, errors) == (130, "", "clustermix: interrupted\n")


@needs_browser
def test_a_browser_reloads_the_page_after_new_results(chromium: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", usage=None)
    with (
        running(open_server([folder], 0)) as port,
        opened(chromium, f"http://127.0.0.1:{port}/") as tab,
    ):
        tab.clock.install()
        tab.reload()
        assert text(tab, "#live").startswith("Live:")
        for loss in (0.5, 0.125):
            add_records(
                folder,
                {
                    "kind": "eval",
                    "step": 51,
                    "tokens": 20_400,
                    "set": "target/validation",
                    "loss": loss,
                },
            )
            with tab.expect_navigation():
                tab.clock.run_for(3000)
            assert f"to {loss:.3f} nats per token" in text(tab, "header")


@needs_browser
def test_the_page_waits_for_an_active_reader_and_reports_a_stopped_server(
    chromium: Any, tmp_path: Path
) -> None:
    folder, messages = write_run(tmp_path / "a", usage=None), []
    server = ExitStack()
    port = server.enter_context(running(open_server([folder], 0)))
    with server, opened(chromium, f"http://127.0.0.1:{port}/", messages=messages) as tab:
        tab.clock.install()
        tab.reload()
        tab.locator("#losses svg").first.focus()
        tab.keyboard.press("ArrowLeft")
        add_records(
            folder,
            {
                "kind": "eval",
                "step": 51,
                "tokens": 20_400,
                "set": "target/validation",
                "loss": 0.125,
            },
        )
        tab.clock.run_for(9000)
        assert "0.125" not in text(tab, "header")
        tab.keyboard.press("Escape")
        with tab.expect_navigation():
            tab.clock.run_for(3000)
        assert "0.125" in text(tab, "header")
        assert messages == []
        server.close()
        tab.clock.run_for(3000)
        tab.locator("#live", has_text="No longer live").wait_for()
