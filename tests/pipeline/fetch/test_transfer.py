import hashlib
import os
import time
from dataclasses import replace

import pytest

from pipeline.fetch.partial import PartialFile, RemoteFile
from pipeline.fetch.transfer import AbsentFileError, FailedTransferError, HttpClient
from pipeline.source.backoff import RetryPolicy
from tests.helpers.failing_server import serving

BODY = os.urandom(3_000_000)
QUICKLY = RetryPolicy(attempts=3, first_seconds=0.001, maximum_seconds=0.002)


@pytest.fixture
def server():
    with serving() as found:
        found.files["f"] = BODY
        yield found


def transfer(server, tmp_path, retries=QUICKLY, name="f"):
    """Return the final bytes, the result of the transfer, and the ranges of the GET requests."""
    with HttpClient(retries=retries) as client:
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


def test_a_server_that_fails_twice_is_asked_three_times(server, tmp_path):
    server.faults["f"] = ["503", "500"]
    body, done, _ = transfer(server, tmp_path)
    assert (body == BODY, done.attempts) == (True, 3)


def test_a_pause_that_a_server_requests_is_kept(server, tmp_path):
    server.faults["f"] = ["429 1"]
    started = time.monotonic()
    body, done, _ = transfer(server, tmp_path)
    assert (body == BODY, done.attempts, time.monotonic() - started >= 1) == (True, 2, True)


def test_a_broken_connection_resumes_where_it_broke(server, tmp_path):
    server.faults["f"] = ["cut 1000000", "cut 500000"]
    body, done, ranges = transfer(server, tmp_path)
    assert (body == BODY, done.attempts) == (True, 3)
    assert ranges == [None, "bytes=1000000-", "bytes=1500000-"]
    assert done.sha256 == hashlib.sha256(BODY).hexdigest()


def test_only_failures_without_a_new_byte_use_up_the_retries(server, tmp_path):
    server.faults["f"] = ["cut 100000", "503", "cut 100000", "503", "503", "cut 100000"]
    body, done, _ = transfer(server, tmp_path)
    assert (body == BODY, done.attempts) == (True, 7)


def test_a_server_without_ranges_sends_the_whole_again(server, tmp_path):
    server.ranges = False
    server.faults["f"] = ["cut 1000000"]
    body, done, ranges = transfer(server, tmp_path)
    assert (body == BODY, done.attempts, ranges) == (True, 2, [None, "bytes=1000000-"])


def test_a_server_without_etags_is_never_asked_for_a_range(server, tmp_path):
    server.etags = False
    server.faults["f"] = ["cut 1000000"]
    body, done, ranges = transfer(server, tmp_path)
    assert (body == BODY, done.attempts, ranges) == (True, 2, [None, None])


def test_a_length_below_the_announced_one_is_not_accepted(server, tmp_path):
    server.faults["f"] = ["less 1000"]
    body, done, ranges = transfer(server, tmp_path)
    assert (body == BODY, done.attempts, ranges) == (True, 2, [None, "bytes=1000-"])


def test_absent_and_forbidden_files_are_not_requested_again(server, tmp_path):
    with HttpClient(retries=QUICKLY) as client:
        with pytest.raises(AbsentFileError):
            client.ask(f"{server.url}/gone")
        server.faults["f"] = ["404"]
        with pytest.raises(AbsentFileError):
            client.transfer(f"{server.url}/f", tmp_path / "f", RemoteFile())
        server.faults["f"] = ["403"]
        with pytest.raises(FailedTransferError, match="403") as refused:
            client.transfer(f"{server.url}/f", tmp_path / "f", RemoteFile())
    assert (refused.value.attempts, len(server.asked("GET")), (tmp_path / "f").exists()) == (
        1,
        2,
        False,
    )


def test_retries_end(server, tmp_path):
    server.faults["f"] = ["503"] * 5
    with (
        HttpClient(retries=QUICKLY) as client,
        pytest.raises(FailedTransferError, match="503") as failed,
    ):
        client.transfer(f"{server.url}/f", tmp_path / "f", RemoteFile())
    assert failed.value.attempts == 3


def test_no_server_at_all_is_a_failure_with_a_reason(tmp_path):
    with HttpClient(retries=QUICKLY) as client, pytest.raises(FailedTransferError, match="refused"):
        client.ask("http://127.0.0.1:9/f")


def test_a_server_without_head_requests_gives_the_file(server, tmp_path):
    server.head_faults["f"] = ["405"]
    body, done, _ = transfer(server, tmp_path)
    assert (body == BODY, done.attempts) == (True, 1)


def test_a_part_of_other_content_is_deleted(server, tmp_path):
    with HttpClient(retries=QUICKLY) as client:
        url = f"{server.url}/f"
        partial = PartialFile(tmp_path / "f", client.ask(url))
        partial.part.write_bytes(BODY[:1_000])
        server.files["f"] = BODY[::-1]
        done = client.transfer(url, tmp_path / "f", partial.remote)
    assert (tmp_path / "f").read_bytes() == BODY[::-1]
    assert (server.requests[-1], done.bytes, os.listdir(tmp_path)) == (
        ("GET", "f", "bytes=1000-"),
        3_000_000,
        ["f"],
    )


def test_a_complete_part_is_not_fetched_again(server, tmp_path):
    with HttpClient(retries=QUICKLY) as client:
        remote = client.ask(f"{server.url}/f")
        PartialFile(tmp_path / "f", remote).part.write_bytes(BODY)
    body, done, ranges = transfer(server, tmp_path)
    assert (body == BODY, done.sha256, ranges) == (True, hashlib.sha256(BODY).hexdigest(), [])


def test_a_checksum_that_differs_from_the_servers_is_a_failure(server, tmp_path):
    with HttpClient(retries=QUICKLY) as client:
        remote = replace(client.ask(f"{server.url}/f"), sha256="0" * 64)
        with pytest.raises(FailedTransferError, match="checksum"):
            client.transfer(f"{server.url}/f", tmp_path / "f", remote)
    assert not (tmp_path / "f").exists()


def test_the_hubs_redirects_are_followed_and_their_sizes_and_checksums_are_used(server, tmp_path):
    linked = {
        "Location": "/f",
        "X-Linked-Size": "3000000",
        "X-Linked-ETag": f'"{hashlib.sha256(BODY).hexdigest()}"',
    }
    server.redirects["resolve"] = linked
    server.head_faults["f"] = ["403"]  # an address signed for GET alone
    with HttpClient(retries=QUICKLY) as client:
        remote = client.ask(f"{server.url}/resolve")
    assert (remote.bytes, remote.validator, remote.sha256) == (
        3_000_000,
        None,
        hashlib.sha256(BODY).hexdigest(),
    )
    body, done, _ = transfer(server, tmp_path, name="resolve")
    assert (body == BODY, done.attempts) == (True, 1)
    server.redirects["resolve"] = linked | {"X-Linked-ETag": '"' + "0" * 64 + '"'}
    with pytest.raises(FailedTransferError, match="checksum"):
        transfer(server, tmp_path, name="resolve")
