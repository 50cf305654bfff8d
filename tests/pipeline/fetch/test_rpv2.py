import gzip
import hashlib
import json
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from data_catalog.errors import UserError
from pipeline.fetch import schedule
from pipeline.fetch.rpv2 import fetch_rpv2
from pipeline.source.backoff import RetryPolicy
from pipeline.source.config import Rpv2
from pipeline.source.rpv2 import Rpv2Source
from tests.helpers.failing_server import serving
from tests.helpers.repository import ROOT

QUICKLY = RetryPolicy(attempts=3, first_seconds=0.001, maximum_seconds=0.002)
TAGS = ("2023-06/0000/en_head", "2023-06/0000/en_middle", "2023-06/0001/en_head")


def gz(*records):
    return gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode(), mtime=0)


@pytest.fixture
def server():
    """Three files of head and middle with their side files, and one of the tail, which has none."""
    with serving() as found:
        for i, tag in enumerate(TAGS):
            found.files[f"documents/{tag}.json.gz"] = gz(
                *({"raw_content": f"text {i} {j}"} for j in range(10 * (i + 1)))
            )
            signals = {"id": f"{tag}.json.gz/0", "quality_signals": {"a": [[0, 1, i]]}}
            found.files[f"quality_signals/{tag}.signals.json.gz"] = gz(signals)
            found.files[f"duplicates/{tag}.duplicates.parquet"] = b"no footer"
        found.files["documents/2023-06/0000/en_tail.json.gz"] = gz({"raw_content": "tail"})
        found.files["listings/en-2023-06-head_middle.txt"] = ("\n".join(TAGS) + "\n").encode()
        found.files["listings/en-2023-06-tail.txt"] = b"2023-06/0000/en_tail\n"
        yield found


def fetch(server, root, **more):
    return fetch_rpv2(
        root,
        **{
            "snapshots": ("2023-06",),
            "languages": ("en",),
            "base_url": server.url,
            "retries": QUICKLY,
            "workers": 3,
            **more,
        },
    )


def tree(root):
    """Every file below the root but the record."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != "fetch.jsonl"
    }


def entries(root):
    lines = [json.loads(line) for line in (root / "fetch.jsonl").read_text().splitlines()]
    return {line["path"]: line for line in lines}


def counts(summary):
    return {
        name: getattr(summary, name)
        for name in ("fetched", "present", "absent", "failed", "refused")
    }


def test_the_fetched_tree_is_a_source(server, tmp_path):
    seen = []
    summary = fetch(server, tmp_path, on_file=lambda *numbers: seen.append(numbers))
    assert counts(summary) == {"fetched": 10, "present": 0, "absent": 0, "failed": 0, "refused": 0}
    expected = {path: body for path, body in server.files.items() if "tail" not in path}
    assert tree(tmp_path) == expected
    assert summary.bytes == sum(map(len, expected.values()))
    assert [done for done, _, _ in seen] == list(range(1, 10))
    assert seen[-1] == (
        9,
        9,
        summary.bytes - len(server.files["listings/en-2023-06-head_middle.txt"]),
    )
    source = Rpv2Source(Rpv2(kind="rpv2", path=tmp_path))
    shards = source.plan().shards
    assert [shard.key for shard in shards] == list(TAGS)
    assert next(iter(item for item in source.read(shards[2]) if hasattr(item, "text"))).signals == {
        "a": 2.0
    }
    path = f"documents/{TAGS[0]}.json.gz"
    entry = entries(tmp_path)[path]
    assert (entry["state"], entry["bytes"], entry["attempts"]) == (
        "fetched",
        len(server.files[path]),
        1,
    )
    assert entry["sha256"] == hashlib.sha256(server.files[path]).hexdigest()


def test_a_second_fetch_requests_nothing(server, tmp_path):
    fetch(server, tmp_path)
    server.requests.clear()
    assert counts(fetch(server, tmp_path)) == {
        "fetched": 0,
        "present": 10,
        "absent": 0,
        "failed": 0,
        "refused": 0,
    }
    assert server.requests == []


def test_a_deleted_or_truncated_file_is_fetched_again(server, tmp_path):
    fetch(server, tmp_path)
    (tmp_path / f"documents/{TAGS[0]}.json.gz").unlink()
    (tmp_path / f"documents/{TAGS[1]}.json.gz").write_bytes(b"short")
    before = dict(server.files)
    assert counts(fetch(server, tmp_path))["fetched"] == 2
    assert tree(tmp_path) == {path: body for path, body in before.items() if "tail" not in path}


def test_a_complete_file_without_a_record_is_kept(server, tmp_path):
    path = f"documents/{TAGS[0]}.json.gz"
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_bytes(server.files[path])
    assert counts(fetch(server, tmp_path)) == {
        "fetched": 9,
        "present": 1,
        "absent": 0,
        "failed": 0,
        "refused": 0,
    }
    assert path not in server.asked("GET")
    assert entries(tmp_path)[path]["sha256"] == hashlib.sha256(server.files[path]).hexdigest()


def test_the_tail_has_only_documents_and_filters_choose(server, tmp_path):
    fetch(server, tmp_path, buckets=("tail",))
    assert sorted(tree(tmp_path)) == [
        "documents/2023-06/0000/en_tail.json.gz",
        "listings/en-2023-06-tail.txt",
    ]
    fetch(
        server, tmp_path / "b", buckets=("head",), shards={1}, components=("documents", "minhash")
    )
    assert sorted(tree(tmp_path / "b")) == [
        f"documents/{TAGS[2]}.json.gz",
        "listings/en-2023-06-head_middle.txt",
    ]
    assert entries(tmp_path / "b")[f"minhash/{TAGS[2]}.minhash.parquet"]["state"] == "absent"


def test_the_sample_has_one_listing_and_needs_no_filters(server, tmp_path):
    server.files["sample_listings.txt"] = "\n".join(TAGS[:2]).encode()
    summary = fetch_rpv2(tmp_path, sample=True, base_url=server.url, retries=QUICKLY)
    assert counts(summary) == {"fetched": 7, "present": 0, "absent": 0, "failed": 0, "refused": 0}
    assert [
        shard.key for shard in Rpv2Source(Rpv2(kind="rpv2", path=tmp_path)).plan().shards
    ] == list(TAGS[:2])


def test_absent_files_are_recorded_and_requested_again_only_on_request(server, tmp_path):
    path = f"quality_signals/{TAGS[0]}.signals.json.gz"
    body = server.files.pop(path)
    assert counts(fetch(server, tmp_path)) == {
        "fetched": 9,
        "present": 0,
        "absent": 1,
        "failed": 0,
        "refused": 0,
    }
    server.files[path] = body
    server.requests.clear()
    assert counts(fetch(server, tmp_path)) == {
        "fetched": 0,
        "present": 9,
        "absent": 1,
        "failed": 0,
        "refused": 0,
    }
    assert server.requests == []
    assert counts(fetch(server, tmp_path, retry_absent=True)) == {
        "fetched": 1,
        "present": 9,
        "absent": 0,
        "failed": 0,
        "refused": 0,
    }
    assert (tmp_path / path).read_bytes() == body


def test_failures_do_not_stop_other_files_and_are_retried_the_next_time(server, tmp_path):
    bad, forbidden = f"documents/{TAGS[0]}.json.gz", f"documents/{TAGS[1]}.json.gz"
    server.faults[bad] = ["503"] * 3
    server.head_faults[forbidden] = ["403"]
    summary = fetch(server, tmp_path)
    assert counts(summary) == {"fetched": 8, "present": 0, "absent": 0, "failed": 2, "refused": 0}
    assert sorted((entry.path, entry.detail, entry.attempts) for entry in summary.failures) == [
        (bad, "the server answered 503", 3),
        (forbidden, "the server answered 403", 1),
    ]
    assert counts(fetch(server, tmp_path)) == {
        "fetched": 2,
        "present": 8,
        "absent": 0,
        "failed": 0,
        "refused": 0,
    }


def test_files_are_fetched_largest_first(server, tmp_path):
    fetch(server, tmp_path, components=("documents",), workers=1)
    assert server.asked("GET")[1:] == [f"documents/{TAGS[i]}.json.gz" for i in (2, 1, 0)]


def test_lines_of_a_hostile_listing_are_refused_by_name_and_write_nothing(server, tmp_path):
    root = tmp_path / "a" / "b" / "root"
    server.files["documents/../../../escaped.json.gz"] = b"x"
    server.files["listings/en-2023-06-head_middle.txt"] = (
        f"../../../escaped\n/etc/passwd\n{TAGS[0]}\n\xff\n".encode("latin-1")
    )
    summary = fetch(server, root)
    assert counts(summary) == {"fetched": 4, "present": 0, "absent": 0, "failed": 0, "refused": 3}
    refused = {
        path: entry["detail"]
        for path, entry in entries(root).items()
        if entry["state"] == "refused"
    }
    name = "listings/en-2023-06-head_middle.txt"
    assert refused == {
        f"{name}:1": "'../../../escaped'",
        f"{name}:2": "'/etc/passwd'",
        f"{name}:4": "'\\ufffd'",
    }
    assert list(tmp_path.rglob("*escaped*")) == []
    assert counts(fetch(server, root))["refused"] == 3
    assert (
        len([line for line in (root / "fetch.jsonl").read_text().splitlines() if "refused" in line])
        == 3
    )


def test_invalid_arguments_are_refused(server, tmp_path, monkeypatch):
    for more, message in (
        ({"snapshots": ()}, "fetch rpv2: .*--snapshot"),
        ({"snapshots": ("../x",)}, 'fetch rpv2: snapshot "../x"'),
        ({"languages": ("english",)}, 'fetch rpv2: lang "english"'),
        ({"buckets": ("top",)}, 'fetch rpv2: bucket "top"'),
        ({"components": ("tokens",)}, 'fetch rpv2: component "tokens"'),
        ({"snapshots": ("2022-05",)}, r"fetch rpv2: .*en-2022-05-head_middle\.txt"),
        ({"shards": {77}}, "fetch rpv2: .*shards"),
    ):
        with pytest.raises(UserError, match=message):
            fetch(server, tmp_path, **more)
    monkeypatch.setattr(schedule.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(UserError, match=r" 9 missing files .* 100 bytes"):
        fetch(server, tmp_path)


PROGRAM = """
import sys
from pathlib import Path
from types import SimpleNamespace
from pipeline.fetch.rpv2 import fetch_rpv2
root, filters = Path(sys.argv[2]), {"snapshots": ("2023-06",), "languages": ("en",)}
fetch_rpv2(root, **filters, base_url=sys.argv[1], workers=2)
"""


@pytest.mark.system
def test_a_killed_fetch_resumes_and_gives_the_same_tree(server, tmp_path):
    path = f"documents/{TAGS[2]}.json.gz"
    server.files[path] = gz(
        *({"raw_content": hashlib.sha256(b"%d" % i).hexdigest()} for i in range(5_000))
    )
    server.faults[path] = ["slow 100000"]
    root = tmp_path / "root"
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, server.url, root], cwd=ROOT)
    deadline = time.monotonic() + 120
    while not any(part.stat().st_size == 100_000 for part in root.rglob("*.part")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    server.go.set()
    server.requests.clear()
    summary = fetch(server, root)
    assert summary.failed == 0
    assert ("GET", path, "bytes=100000-") in server.requests
    assert tree(root) == {path: body for path, body in server.files.items() if "tail" not in path}
    assert entries(root)[path]["sha256"] == hashlib.sha256(server.files[path]).hexdigest()
