import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.format.accounts import Account, Tally, total
from pipeline.config import Build
from pipeline.dedup.targets import KnownTexts, target_texts
from pipeline.parts import Part
from pipeline.source.documents import text_digest
from pipeline.verdicts import kept_key
from tests.helpers.shuffled import deduplicate, make_parts, reasons_of

SOURCE = {"kind": "jsonl", "path": "x"}


def run(
    root: Path,
    tiers: tuple[str, ...],
    *made: tuple[Part, Part],
    known: KnownTexts | None = None,
    **settings,
) -> tuple[list[Part], dict[str, list[str | None]]]:
    config = Build.model_validate(
        {"out": "out", "source": SOURCE, "dedup": {"tiers": tiers}, **settings}
    )
    work = root / "work" / "-".join(("by", *tiers))
    parts = deduplicate(work, made, config.dedup, target_texts(config), known)
    return parts, reasons_of(parts)


def prints(parts: list[Part]) -> list[str]:
    return [part.fingerprint for part in parts]


def account(parts: list[Part]) -> Account:
    return total(part.account for part in parts)


@pytest.fixture
def two(tmp_path):
    """`same` is there four times: dropped by quality, listed as a copy, and kept in both parts."""
    a = make_parts(
        tmp_path,
        "a",
        ("same", False, "gopher.words"),
        ("same", True, None),
        ("aa", None, None),
        ("same", False, None),
    )
    b = make_parts(
        tmp_path,
        "b",
        ("bbb", True, None),
        ("same", False, None),
        ("aa", None, None),
        ("cccc", None, None),
    )
    return a, b


def test_digest_keeps_the_first_that_quality_kept(tmp_path, two):
    parts, reasons = run(tmp_path, ("digest",), *two)
    assert reasons == {
        "a": ["gopher.words", None, None, "dedup.digest"],
        "b": [None, "dedup.digest", "dedup.digest", None],
    }
    assert account(parts) == Account(
        read=Tally(rows=7, characters=23),
        kept=Tally(rows=4, characters=13),
        dropped={"dedup.digest": Tally(rows=3, characters=10)},
    )


def test_another_memory_keeps_the_parts(tmp_path, two):
    made = [
        run(tmp_path, ("digest",), *two, dedup={"tiers": ["digest"], "memory_megabytes": memory})[0]
        for memory in (64, 2_000)
    ]
    assert made[0] == made[1]


def test_shipped_drops_what_the_corpus_lists(tmp_path, two):
    parts, reasons = run(tmp_path, ("shipped",), *two)
    assert reasons == {
        "a": ["gopher.words", "dedup.shipped", None, None],
        "b": ["dedup.shipped", None, None, None],
    }
    assert account(parts).dropped == {"dedup.shipped": Tally(rows=2, characters=7)}


def test_a_copy_counts_once_and_digest_follows_shipped(tmp_path, two):
    parts, reasons = run(tmp_path, ("shipped", "digest"), *two)
    assert reasons == {
        "a": ["gopher.words", "dedup.shipped", None, None],
        "b": ["dedup.shipped", "dedup.digest", "dedup.digest", None],
    }
    assert account(parts) == Account(
        read=Tally(rows=7, characters=23),
        kept=Tally(rows=3, characters=10),
        dropped={
            "dedup.shipped": Tally(rows=2, characters=7),
            "dedup.digest": Tally(rows=2, characters=6),
        },
    )


def test_without_tiers_only_quality_drops_documents(tmp_path, two):
    parts, reasons = run(tmp_path, (), *two)
    assert reasons == {"a": ["gopher.words", None, None, None], "b": [None, None, None, None]}
    assert account(parts).read == account(parts).kept == Tally(rows=7, characters=23)


def test_other_columns_and_order_stay_and_no_other_files_remain(tmp_path, two):
    parts, _ = run(tmp_path, ("digest",), *two)
    before = pq.read_table(two[0][1].folder / "verdicts.parquet").drop_columns("reason")
    assert pq.read_table(parts[0].folder / "a.parquet").drop_columns("reason").equals(before)
    assert [sorted(path.name for path in part.folder.iterdir()) for part in parts] == [
        ["a.parquet", "part.json"],
        ["b.parquet", "part.json"],
    ]


def test_shipped_without_any_list_warns(tmp_path, caplog):
    run(tmp_path, ("shipped",), make_parts(tmp_path, "a", ("x", None, None)))
    assert "dedup.tiers: shipped" in caplog.text


@pytest.mark.parametrize("tiers", [("digest",), ("shipped", "digest")])
def test_empty_parts(tmp_path, tiers):
    parts, reasons = run(
        tmp_path, tiers, make_parts(tmp_path, "a"), make_parts(tmp_path, "b", ("x", None, None))
    )
    assert reasons == {"a": [], "b": [None]}
    assert account(parts).kept == Tally(rows=1, characters=1)


def target(root: Path, name: str, *texts: str) -> dict[str, str]:
    folder = root / "targets" / name
    folder.mkdir(parents=True)
    lines = [
        json.dumps({"id": f"{name}-{i}", "text": text})
        for i, text in enumerate([*texts, *(f"{name} {i}" for i in range(9))])
    ]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    return {"name": name, "path": str(folder)}


def test_copies_of_targets_are_dropped_with_any_tiers(tmp_path, two):
    targets = [target(tmp_path, "t", "same", "same"), target(tmp_path, "u", "cccc")]
    parts, reasons = run(tmp_path, (), *two, targets=targets)
    assert reasons == {
        "a": ["gopher.words", "dedup.target", None, "dedup.target"],
        "b": [None, "dedup.target", None, "dedup.target"],
    }
    assert account(parts) == Account(
        read=Tally(rows=7, characters=23),
        kept=Tally(rows=3, characters=7),
        dropped={"dedup.target": Tally(rows=4, characters=16)},
    )
    _, reasons = run(tmp_path, ("shipped", "digest"), *two, targets=targets)
    assert reasons == {
        "a": ["gopher.words", "dedup.target", None, "dedup.target"],
        "b": ["dedup.shipped", "dedup.target", "dedup.digest", "dedup.target"],
    }


def test_target_texts_cover_all_splits_without_repetition(tmp_path):
    targets = [target(tmp_path, "t", "same"), target(tmp_path, "u", "same", "other")]
    (tmp_path / "targets" / "u" / "test.jsonl").write_text('{"text": "from the test split"}\n')
    config = Build.model_validate(
        {"out": "out", "source": {"kind": "jsonl", "path": "x"}, "targets": targets}
    )
    texts = [
        "same",
        "other",
        "from the test split",
        *(f"t {i}" for i in range(9)),
        *(f"u {i}" for i in range(9)),
    ]
    found = target_texts(config)
    assert [*found] == sorted(map(text_digest, texts))
    assert sorted(found.values()) == sorted(texts)


def test_a_new_target_keeps_the_key_of_parts_without_its_text(tmp_path, two):
    sources = [source for source, _ in two]
    before, _ = run(tmp_path, ("digest",), *two)
    keys = [kept_key(*pair) for pair in zip(sources, before, strict=True)]
    after, _ = run(tmp_path, ("digest",), *two, targets=[target(tmp_path, "t", "cccc")])
    assert prints(after) != prints(before)
    of_a, of_b = (kept_key(*pair) for pair in zip(sources, after, strict=True))
    assert of_a == keys[0]
    assert of_b != keys[1]


def test_known_texts_are_dropped_and_targets_take_precedence(tmp_path, two):
    pq.write_table(
        pa.table({"digest": [text_digest("aa"), text_digest("cccc"), text_digest("aa"), None]}),
        tmp_path / "digests.parquet",
    )
    targets = [target(tmp_path, "t", "cccc")]
    known, other = (
        KnownTexts((Part(tmp_path, content, Account(), 0),), 4, content) for content in ("1", "2")
    )
    parts, reasons = run(tmp_path, ("digest",), *two, known=known, targets=targets)
    assert reasons == {
        "a": ["gopher.words", None, "dedup.catalog", "dedup.digest"],
        "b": [None, "dedup.digest", "dedup.catalog", "dedup.target"],
    }
    again, _ = run(tmp_path, ("digest",), *two, known=other, targets=targets)
    assert prints(again) != prints(parts)


def test_the_order_of_the_tiers_and_other_stages_settings_change_nothing(tmp_path, two):
    first, _ = run(tmp_path, ("shipped", "digest"), *two)
    again, _ = run(tmp_path, ("digest", "shipped"), *two, embed={"max_tokens": 8}, seed=3)
    assert prints(again) == prints(first)
    assert prints(run(tmp_path, ("digest",), *two)[0]) != prints(first)
