"""The tier minhash drops near copies of the documents of targets."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.format.manifest import fingerprint
from pipeline.config import Build
from pipeline.dedup.exact import KnownTexts, target_texts
from pipeline.dedup.signatures import sign
from pipeline.parts import read_part
from tests.helpers.passages import passage
from tests.pipeline.dedup.test_stage import SOURCE, parts, run, signed, target

GOAL = passage("goal", 200)


@pytest.fixture
def edited(tmp_path):
    """A corpus with near copies, and a function that runs a tier.

    a/0 is a target's text with another end, and b/0 is a copy of a/1. Only a band that is not of
    the target links b/1 to a/0.
    """
    copy, far = f"{GOAL.rpartition(' ')[0]} end", passage("far", 90)
    texts = {"a": [copy, far], "b": [far, "other"]}
    made = [parts(tmp_path, name, *((t, None, None) for t in of)) for name, of in texts.items()]
    of_copy, of_far = sign([copy, far], 0.7)
    a = signed(tmp_path, "a", [*of_copy, b"link"], of_far)
    b = signed(tmp_path, "b", of_far, [*map(str.encode, "0123456789abcd"), b"link"])
    return lambda *tiers, **more: run(tmp_path, tiers, *made, signatures=(a, b), **more)


def test_near_copies_of_targets_are_dropped_with_their_whole_family(tmp_path, edited):
    targets = [target(tmp_path, "t", GOAL)]
    part, reasons = edited("minhash", targets=targets)
    assert reasons == {
        "a": ["dedup.near_target", None],
        "b": ["dedup.minhash", "dedup.near_target"],
    }
    dropped = {reason: tally.rows for reason, tally in part.account.dropped.items()}
    assert dropped == {"dedup.near_target": 2, "dedup.minhash": 1}
    _, reasons = edited("digest", targets=targets)
    assert reasons == {"a": [None, None], "b": ["dedup.digest", None]}
    _, reasons = edited("minhash")
    assert reasons == {"a": [None, None], "b": ["dedup.minhash", "dedup.minhash"]}  # one stays


def test_near_copies_of_the_targets_of_a_catalog_are_dropped(tmp_path, edited):
    for name, column in (("digests", "digest"), ("target", "text")):
        pq.write_table(pa.table({column: [GOAL]}), tmp_path / f"{name}.parquet")
    known = KnownTexts(
        "dedup.catalog", (tmp_path / "digests.parquet",), "1", (tmp_path / "target.parquet",)
    )
    _, reasons = edited("minhash", known=(known,))
    assert reasons["a"] == ["dedup.near_target", None]
    assert reasons["b"] == ["dedup.minhash", "dedup.near_target"]


def test_only_near_copies_of_targets_make_a_part_of_an_older_version_again(tmp_path, edited):
    targets = [target(tmp_path, "t", GOAL)]
    digests = [*target_texts(Build(out=tmp_path, source=SOURCE, targets=targets))]
    of_stage = {
        stage: [read_part(tmp_path / stage / name).fingerprint for name in ("a", "b")]
        for stage in ("source", "quality", "sign")
    }
    rows = zip(("a", "b"), of_stage["source"], of_stage["quality"], strict=True)
    inputs = [[*row] for row in rows]
    for tier, more, known_digests, is_same in (
        ("minhash", {}, [], True),
        ("digest", {"targets": targets}, digests, True),
        ("minhash", {"targets": targets}, digests, False),
    ):
        part, _ = edited(tier, **more)
        bands = of_stage["sign"] if tier == "minhash" else []
        before = fingerprint("dedup", 2, [tier], inputs, bands, known_digests, [])
        assert (part.fingerprint == before) == is_same
