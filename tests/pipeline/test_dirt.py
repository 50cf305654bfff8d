"""Every kind of dirt in real crawls has a named outcome that is counted.

One tree holds all of it, and is read as in a build.
"""

import gzip
import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from data_catalog.format.accounts import Account, Tally
from pipeline.config import Build
from pipeline.quality.stage import judge_part
from pipeline.source.registry import corpus_source
from pipeline.source.stage import read_shard
from tests.helpers.repository import ROOT
from tests.helpers.shuffled import deduplicate


def line(text, **more):
    return json.dumps({"raw_content": text, **more}).encode() + b"\n"


def noise(lines):
    """Lines that compress badly, so that whole ones come before a cut."""
    return b"".join(line(os.urandom(300).hex()) for _ in range(lines))


BIG = "5 MB. " * 900_000
FILES = {  # shard -> stored content
    "00": gzip.compress(
        line("kept")
        + b"not json\n"
        + line("")
        + line("x\ud800")
        + b'{"url": "x"}\n'
        + line("again")
        + line("again")
    ),
    "01": gzip.compress(
        line("nul \0 byte") + line("\U0001f600" * 50) + line(BIG) + b"\xff\xfe\n" + b"[]\n\n"
    ),
    "02": gzip.compress(noise(2_000))[:600_000],
    "03": gzip.compress(line("before the garbage")) + b"garbage, not a gzip member",
    "04": b"",
    "05": b"<html>an error page instead of the file</html>",
    "06": gzip.compress(b""),
    "07": gzip.compress(b'{"raw_content": "')
    + gzip.compress(b"x" * 2**20) * 80
    + gzip.compress(b'"}\n' + line("after the bomb")),
}
FAILED = {  # shard -> lost records by reason
    "00": {"not_json": 1, "empty_text": 1, "bad_unicode": 1, "no_text": 1},
    "01": {"bad_utf8": 1, "not_json": 1},
    "02": {"truncated_gzip": 1},
    "03": {"bad_gzip": 1},
    "04": {"empty_file": 1},
    "05": {"not_json": 1},
    "06": {},
    "07": {"line_too_long": 1},
    "08": {"outside_tree": 1},
}


def place(root, component, shard, suffix):
    path = root / component / "2023-06" / f"00{shard}" / f"en_head{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def config(tmp_path):
    root = tmp_path / "tree"
    for shard, content in FILES.items():
        place(root, "documents", shard, ".json.gz").write_bytes(content)
    (tmp_path / "secret.gz").write_bytes(gzip.compress(line("not of the tree")))
    place(root, "documents", "08", ".json.gz").symlink_to(tmp_path / "secret.gz")
    signals = {"id": "2023-06/0000/en_head.json.gz/0", "quality_signals": {"a": [[0, 4, 1]]}}
    place(root, "quality_signals", "00", ".signals.json.gz").write_bytes(
        gzip.compress(json.dumps(signals).encode())
    )  # of one row of three
    place(root, "duplicates", "00", ".duplicates.parquet").write_bytes(b"PAR1 without a footer")
    (root / "listings").mkdir()
    (root / "listings" / "en-2023-06-head_middle.txt").write_text(
        "2023-06/0000/en_head\n2023-06/0099/en_head\n../../etc/passwd\n"
    )
    return Build.model_validate({"out": tmp_path / "out", "source": {"kind": "rpv2", "path": root}})


def test_every_kind_of_dirt_is_counted_by_reason_and_nothing_else_is_lost(config, tmp_path):
    source = corpus_source(config)
    inventory = source.plan()
    shards = inventory.shards
    assert {note.reason: note.file for note in inventory.unread} == {
        "missing_file": "2023-06/0099/en_head"
    }
    parts = {
        shard.key[10:12]: read_shard(shard, tmp_path / "source" / shard.name, source)
        for shard in shards
    }
    assert {
        shard: {reason: tally.rows for reason, tally in part.account.failed.items()}
        for shard, part in parts.items()
    } == FAILED
    kept = {shard: part.account.kept.rows for shard, part in parts.items()}
    assert 500 < kept.pop("02") < 2_000
    assert kept == {"00": 3, "01": 3, "03": 1, "04": 0, "05": 0, "06": 0, "07": 1, "08": 0}
    texts = pq.read_table(parts["01"].folder / "documents.parquet")["text"].to_pylist()
    assert texts == ["nul \0 byte", "\U0001f600" * 50, BIG]
    quarantine = pq.read_table(parts["00"].folder / "quarantine.parquet").to_pylist()
    assert [
        (row["reason"], row["row"], row["detail"])
        for row in quarantine
        if row["file"].startswith(("dup", "qual"))
    ] == [
        ("duplicates_unreadable", None, quarantine[0]["detail"]),
        ("signals_missing", None, "2 of 3 documents have no quality signals"),
    ]


def test_the_same_document_twice_is_read_twice_and_kept_once(config, tmp_path):
    source = corpus_source(config)
    part = read_shard(source.plan().shards[0], tmp_path / "source" / "00", source)
    judged = judge_part(part, tmp_path / "quality" / "00", config.quality)
    [unique] = deduplicate(tmp_path / "work", [(part, judged)], config.dedup)
    assert unique.account.dropped == {"dedup.digest": Tally(rows=1, characters=5)}
    assert unique.account.kept == Tally(rows=2, characters=9)


MEASURE = """
import resource, sys
from pathlib import Path
from pipeline.config import Build
from pipeline.source.registry import corpus_source
from pipeline.source.stage import read_shard
config = Build.model_validate({"out": sys.argv[1], "source": {"kind": "rpv2", "path": sys.argv[1]}})
source = corpus_source(config)
[shard] = source.plan().shards
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
# The process dies if it maps more than the limit beyond its present memory.
mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + 512 * 2**20,) * 2)
part = read_shard(shard, Path(sys.argv[1]) / "part", source)
print(part.account.model_dump_json())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.system
@pytest.mark.parametrize(
    "ends", [True, False], ids=["a line of 640 MiB", "a file of 640 MiB without an end"]
)
def test_a_gzip_bomb_is_read_in_a_quarter_of_a_gigabyte(tmp_path, ends):
    zeros = gzip.compress(bytes(2**20))
    bomb = (
        gzip.compress(line("before"))
        + zeros * 640
        + (gzip.compress(b"\n" + line("after")) if ends else b"")
    )
    place(tmp_path, "documents", "00", ".json.gz").write_bytes(bomb)
    assert len(bomb) < 2 * 2**20
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    account, kilobytes = done.stdout.splitlines()
    kept = Tally(rows=2, characters=11) if ends else Tally(rows=1, characters=6)
    noted = {"signals_missing": Tally(rows=kept.rows)}
    expected = Account(
        read=kept + Tally(rows=1), kept=kept, failed={"line_too_long": Tally(rows=1)}, noted=noted
    )
    assert Account.model_validate_json(account) == expected
    assert int(kilobytes) < 256 * 1_024
