import hashlib
import os
import time
from dataclasses import replace

import pytest

from pipeline.fetch.partial import Remote, UnderWay
from pipeline.fetch.transfer import AbsentError, Client, FailedError
from pipeline.source.backoff import Patience
from tests.helpers.failing_server import serving

BODY = os.urandom(3_000_000)
SOON = Patience(tries=3, first_seconds=0.001, most_seconds=0.002)


@pytest.fixture
def server():
    with serving() as found:
        found.files["f"] = BODY
        yield found


def transfer(server, tmp_path, patience=SOON, name="f"):
    """The bytes at the end, what the transfer said of them, and the ranges that GETs asked for."""
    with Client(patience=patience) as client:
        url = f"{server.url}/{name}"
        done = client.transfer(url, tmp_path / "f", client.ask(url))
    ranges = [asked for method, _, asked in server.requests if method == "GET"]
    assert os.listdir(tmp_path) == ["f"]
    return (tmp_path / "f").read_bytes(), done, ranges


def test_a_file_arrives_whole_with_its_size_and_checksum(server, tmp_path):
    body, done, ranges = transfer(server, tmp_path)
    assert (body == BODY, done.bytes, done.sha256, done.attempts, ranges) == (
        True,
        3_000_000,
        hashlib.sha256(BODY).hexdigest(),
        1,
        [None],
    )


def test_a_server_that_is_busy_twice_is_asked_three_times(server, tmp_path):
    server.faults["f"] = ["503", "500"]
    body, done, _ = transfer(server, tmp_path)
    assert (body == BODY, done.attempts) == (True, 3)


def test_a_server_that_asks_for_quiet_gets_it(server, tmp_path):
    server.faults["f"] = ["429 1"]
    started = time.monotonic()
    body, done, _ = transfer(server, tmp_path)
    assert (body == BODY, done.attempts, time.monotonic() - started >= 1) == (True, 2, True)


def test_a_broken_connection_is_gone_on_with_where_it_broke(server, tmp_path):
    server.faults["f"] = ["cut 1000000", "cut 500000"]
    body, done, ranges = transfer(server, tmp_path)
    assert (body == BODY, done.attempts) == (True, 3)
    assert ranges == [None, "bytes=1000000-", "bytes=1500000-"]
    assert done.sha256 == hashlib.sha256(BODY).hexdigest()


def test_failures_count_only_in_a_row_without_a_byte_gained(server, tmp_path):
    server.faults["f"] = ["cut 100000", "503", "cut 100000", "503", "503", "cut 100000"]
    body, done, _ = transfer(server, tmp_path)
    assert (body == BODY, done.attempts) == (True, 7)


def test_a_server_without_ranges_sends_the_whole_again(server, tmp_path):
    server.ranges = False
    server.faults["f"] = ["cut 1000000"]
    body, done, ranges = transfer(server, tmp_path)
    assert (body == BODY, done.attempts, ranges) == (True, 2, [None, "bytes=1000000-"])


def test_a_server_without_etags_is_never_asked_for_a_rest(server, tmp_path):
    server.etags = False
    server.faults["f"] = ["cut 1000000"]
    body, done, ranges = transfer(server, tmp_path)
    assert (body == BODY, done.attempts, ranges) == (True, 2, [None, None])


def test_a_length_below_the_one_said_before_is_not_believed(server, tmp_path):
    server.faults["f"] = ["less 1000"]
    body, done, ranges = transfer(server, tmp_path)
    assert (body == BODY, done.attempts, ranges) == (True, 2, [None, "bytes=1000-"])


def test_an_absent_file_and_one_that_is_refused_are_not_asked_for_again(server, tmp_path):
    with Client(patience=SOON) as client:
        with pytest.raises(AbsentError):
            client.ask(f"{server.url}/gone")
        server.faults["f"] = ["404"]
        with pytest.raises(AbsentError):
            client.transfer(f"{server.url}/f", tmp_path / "f", Remote())
        server.faults["f"] = ["403"]
        with pytest.raises(FailedError, match="answered 403") as refused:
            client.transfer(f"{server.url}/f", tmp_path / "f", Remote())
    assert (refused.value.attempts, len(server.asked("GET")), (tmp_path / "f").exists()) == (
        1,
        2,
        False,
    )


def test_patience_ends(server, tmp_path):
    server.faults["f"] = ["503"] * 5
    with (
        Client(patience=SOON) as client,
        pytest.raises(FailedError, match="answered 503") as failed,
    ):
        client.transfer(f"{server.url}/f", tmp_path / "f", Remote())
    assert failed.value.attempts == 3


def test_no_server_at_all_is_a_failure_with_a_reason(tmp_path):
    with Client(patience=SOON) as client, pytest.raises(FailedError, match="refused"):
        client.ask("http://127.0.0.1:9/f")


def test_a_server_without_head_still_gives_the_file(server, tmp_path):
    server.head_faults["f"] = ["405"]
    body, done, _ = transfer(server, tmp_path)
    assert (body == BODY, done.attempts) == (True, 1)


def test_a_part_of_another_content_is_thrown_away(server, tmp_path):
    with Client(patience=SOON) as client:
        url = f"{server.url}/f"
        under_way = UnderWay(tmp_path / "f", client.ask(url))
        under_way.part.write_bytes(BODY[:1_000])
        server.files["f"] = BODY[::-1]
        done = client.transfer(url, tmp_path / "f", under_way.remote)
    assert (tmp_path / "f").read_bytes() == BODY[::-1]
    assert (server.requests[-1], done.bytes, os.listdir(tmp_path)) == (
        ("GET", "f", "bytes=1000-"),
        3_000_000,
        ["f"],
    )


def test_a_whole_part_that_was_not_renamed_is_not_fetched_again(server, tmp_path):
    with Client(patience=SOON) as client:
        remote = client.ask(f"{server.url}/f")
        UnderWay(tmp_path / "f", remote).part.write_bytes(BODY)
    body, done, ranges = transfer(server, tmp_path)
    assert (body == BODY, done.sha256, ranges) == (True, hashlib.sha256(BODY).hexdigest(), [])


def test_a_checksum_that_differs_from_the_servers_is_a_failure(server, tmp_path):
    with Client(patience=SOON) as client:
        remote = replace(client.ask(f"{server.url}/f"), sha256="0" * 64)
        with pytest.raises(FailedError, match="checksum differs"):
            client.transfer(f"{server.url}/f", tmp_path / "f", remote)
    assert not (tmp_path / "f").exists()


def test_the_hubs_redirects_are_followed_and_its_sizes_and_checksums_believed(server, tmp_path):
    linked = {
        "Location": "/f",
        "X-Linked-Size": "3000000",
        "X-Linked-ETag": f'"{hashlib.sha256(BODY).hexdigest()}"',
    }
    server.redirects["resolve"] = linked
    server.head_faults["f"] = ["403"]  # an address signed for GET alone
    with Client(patience=SOON) as client:
        remote = client.ask(f"{server.url}/resolve")
    assert (remote.bytes, remote.validator, remote.sha256) == (
        3_000_000,
        None,
        hashlib.sha256(BODY).hexdigest(),
    )
    body, done, _ = transfer(server, tmp_path, name="resolve")
    assert (body == BODY, done.attempts) == (True, 1)
    server.redirects["resolve"] = linked | {"X-Linked-ETag": '"' + "0" * 64 + '"'}
    with pytest.raises(FailedError, match="checksum differs"):
        transfer(server, tmp_path, name="resolve")
