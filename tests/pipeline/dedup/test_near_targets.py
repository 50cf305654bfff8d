"""The tier minhash drops near copies of the documents of targets."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.format.accounts import Account
from pipeline.dedup import targets as targets_module
from pipeline.dedup.targets import KnownTexts
from pipeline.parts import Part
from tests.helpers.passages import passage
from tests.helpers.shuffled import make_parts
from tests.pipeline.dedup.test_stage import account, run, target

GOAL = passage("goal", 200)


def edit(text: str, first: int, words: int) -> str:
    """Replace some words of a text."""
    known = text.split()
    known[first : first + words] = [f"edit{i}" for i in range(first, first + words)]
    return " ".join(known)


@pytest.fixture
def edited(tmp_path):
    """A corpus with near copies, and a function that runs a tier.

    a/0 is a near copy of a target's text, and b/1 one of a/0, but not of the target. b/0 is a copy
    of a/1.
    """
    copy, far = edit(GOAL, 0, 20), passage("far", 90)
    texts = {"a": [copy, far], "b": [far, edit(copy, 175, 25)]}
    made = [
        make_parts(tmp_path, name, *((t, None, None) for t in of)) for name, of in texts.items()
    ]
    return lambda *tiers, **more: run(tmp_path, tiers, *made, **more)


def test_near_copies_of_targets_are_dropped_and_their_own_copies_stay(tmp_path, edited):
    targets = [target(tmp_path, "t", GOAL)]
    parts, reasons = edited("minhash", targets=targets)
    assert reasons == {"a": ["dedup.near_target", None], "b": ["dedup.minhash", None]}
    dropped = {reason: tally.rows for reason, tally in account(parts).dropped.items()}
    assert dropped == {"dedup.near_target": 1, "dedup.minhash": 1}
    _, reasons = edited("digest", targets=targets)
    assert reasons == {"a": [None, None], "b": ["dedup.digest", None]}
    _, reasons = edited("minhash")
    assert reasons == {"a": [None, None], "b": ["dedup.minhash", "dedup.minhash"]}


def test_near_copies_of_the_targets_of_a_catalog_are_dropped(tmp_path, edited):
    for name, column, value in (("digests", "digest", "0" * 32), ("documents", "text", GOAL)):
        pq.write_table(pa.table({column: [value]}), tmp_path / f"{name}.parquet")
    texts = (Part(tmp_path, "texts", Account(), 0),)
    known = KnownTexts(texts, 1, "1", texts)
    _, reasons = edited("minhash", known=known)
    assert reasons == {"a": ["dedup.near_target", None], "b": ["dedup.minhash", None]}


def test_many_targets_of_one_template_are_compared_up_to_the_limit(tmp_path, edited, monkeypatch):
    """All targets share most bands. A document near to all of them needs only one."""
    monkeypatch.setattr(targets_module, "MAXIMUM_BAND_TARGETS", 2)
    variants = [edit(GOAL, 190, 1 + i) for i in range(6)]
    _, reasons = edited("minhash", targets=[target(tmp_path, "t", *variants)])
    assert reasons == {"a": ["dedup.near_target", None], "b": ["dedup.minhash", None]}
