import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from pipeline.config import Build
from pipeline.dedup.exact import KnownTexts, target_texts
from pipeline.dedup.minhash import later_members
from pipeline.dedup.stage import dedup
from pipeline.parts import Part, make_part
from pipeline.source.documents import Document, text_digest
from pipeline.source.stage import source_table
from pipeline.verdicts import kept_key

SOURCE = {"kind": "jsonl", "path": "x"}


def parts(root: Path, name: str, *rows: tuple[str, bool | None, str | None]) -> tuple[Part, Part]:
    """A source part and quality's verdict on it, from (text, shipped_duplicate, reason)."""
    table = source_table(
        [
            Document(f"{name}/{i}", text, shipped_duplicate=shipped)
            for i, (text, shipped, _) in enumerate(rows)
        ]
    )
    verdicts = [
        {
            "id_int": number,
            "characters": len(text),
            "failed_rules": int(reason is not None),
            "reason": reason,
        }
        for number, (text, _, reason) in zip(table["id_int"].to_pylist(), rows, strict=True)
    ]

    def source(out: Path) -> Account:
        pq.write_table(table, out / "documents.parquet")
        return Account()

    def judged(out: Path) -> Account:
        pq.write_table(pa.Table.from_pylist(verdicts, tables.VERDICTS), out / "verdicts.parquet")
        return Account()

    return make_part(root / "source" / name, f"source {rows}", source), make_part(
        root / "quality" / name, f"quality {rows}", judged
    )


def signed(root: Path, name: str, *bands: list[bytes] | None) -> Part:
    def make(out: Path) -> Account:
        pq.write_table(
            pa.table([pa.array(list(bands), pa.list_(pa.binary()))], schema=tables.SIGNATURES),
            out / "signatures.parquet",
        )
        return Account()

    return make_part(root / "sign" / name, f"sign {bands}", make)


def run(
    root: Path,
    tiers: tuple[str, ...],
    *made: tuple[Part, Part],
    signatures: tuple[Part, ...] = (),
    known: tuple[KnownTexts, ...] = (),
    **settings,
) -> tuple[Part, dict[str, list[str | None]]]:
    config = Build.model_validate(
        {
            "out": "out",
            "source": SOURCE,
            "dedup": {"tiers": tiers},
            **settings,
        }
    )
    sources, judged = [source for source, _ in made], [verdict for _, verdict in made]
    part = dedup(
        sources,
        judged,
        signatures,
        root / "dedup" / "-".join(("by", *tiers)),
        config.dedup,
        target_texts(config),
        known,
    )
    files = sorted(part.folder.glob("*.parquet"))
    assert all(pq.read_table(file).schema.equals(tables.VERDICTS) for file in files)
    return part, {file.stem: pq.read_table(file)["reason"].to_pylist() for file in files}


@pytest.fixture
def two(tmp_path):
    """`same` is there four times: dropped by quality, listed as a copy, and kept in both parts."""
    a = parts(
        tmp_path,
        "a",
        ("same", False, "gopher.words"),
        ("same", True, None),
        ("aa", None, None),
        ("same", False, None),
    )
    b = parts(
        tmp_path,
        "b",
        ("bbb", True, None),
        ("same", False, None),
        ("aa", None, None),
        ("cccc", None, None),
    )
    return a, b


def test_digest_keeps_the_first_that_quality_kept(tmp_path, two):
    part, reasons = run(tmp_path, ("digest",), *two)
    assert reasons == {
        "a": ["gopher.words", None, None, "dedup.digest"],
        "b": [None, "dedup.digest", "dedup.digest", None],
    }
    assert part.account == Account(
        read=Tally(rows=7, characters=23),
        kept=Tally(rows=4, characters=13),
        dropped={"dedup.digest": Tally(rows=3, characters=10)},
    )


def test_another_memory_keeps_the_part(tmp_path, two):
    prints = [
        run(tmp_path, ("digest",), *two, dedup={"tiers": ["digest"], "memory_megabytes": memory})[0]
        for memory in (64, 2_000)
    ]
    assert prints[0] == prints[1]


def test_shipped_drops_what_the_corpus_lists(tmp_path, two):
    part, reasons = run(tmp_path, ("shipped",), *two)
    assert reasons == {
        "a": ["gopher.words", "dedup.shipped", None, None],
        "b": ["dedup.shipped", None, None, None],
    }
    assert part.account.dropped == {"dedup.shipped": Tally(rows=2, characters=7)}


def test_a_copy_counts_once_and_digest_follows_shipped(tmp_path, two):
    part, reasons = run(tmp_path, ("shipped", "digest"), *two)
    assert reasons == {
        "a": ["gopher.words", "dedup.shipped", None, None],
        "b": ["dedup.shipped", "dedup.digest", "dedup.digest", None],
    }
    assert part.account == Account(
        read=Tally(rows=7, characters=23),
        kept=Tally(rows=3, characters=10),
        dropped={
            "dedup.shipped": Tally(rows=2, characters=7),
            "dedup.digest": Tally(rows=2, characters=6),
        },
    )


def test_without_tiers_only_quality_drops_documents(tmp_path, two):
    part, reasons = run(tmp_path, (), *two)
    assert reasons == {"a": ["gopher.words", None, None, None], "b": [None, None, None, None]}
    assert part.account.read == part.account.kept == Tally(rows=7, characters=23)


def test_other_columns_and_order_stay_and_no_other_files_remain(tmp_path, two):
    part, _ = run(tmp_path, ("digest",), *two)
    before = pq.read_table(two[0][1].folder / "verdicts.parquet").drop_columns("reason")
    assert pq.read_table(part.folder / "a.parquet").drop_columns("reason").equals(before)
    assert sorted(path.name for path in part.folder.iterdir()) == [
        "a.parquet",
        "b.parquet",
        "part.json",
    ]


def test_shipped_without_any_list_warns(tmp_path, caplog):
    run(tmp_path, ("shipped",), parts(tmp_path, "a", ("x", None, None)))
    assert "dedup.tiers: shipped" in caplog.text


@pytest.mark.parametrize("tiers", [("digest",), ("shipped", "digest")])
def test_empty_parts(tmp_path, tiers):
    part, reasons = run(
        tmp_path, tiers, parts(tmp_path, "a"), parts(tmp_path, "b", ("x", None, None))
    )
    assert reasons == {"a": [], "b": [None]}
    assert part.account.kept == Tally(rows=1, characters=1)


def test_parts_that_do_not_match_are_refused(tmp_path, two):
    with pytest.raises(ValueError, match=r"dedup: .*verdicts"):
        run(tmp_path, ("digest",), two[0], two[0])


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
    part, reasons = run(tmp_path, (), *two, targets=targets)
    assert reasons == {
        "a": ["gopher.words", "dedup.target", None, "dedup.target"],
        "b": [None, "dedup.target", None, "dedup.target"],
    }
    assert part.account == Account(
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
    before, _ = run(tmp_path, ("digest",), *two)
    keys = [kept_key(source, before) for source, _ in two]
    after, _ = run(tmp_path, ("digest",), *two, targets=[target(tmp_path, "t", "cccc")])
    assert after.fingerprint != before.fingerprint
    assert [kept_key(source, after) == key for (source, _), key in zip(two, keys, strict=True)] == [
        True,
        False,
    ]


def test_known_texts_are_dropped_and_targets_take_precedence(tmp_path, two):
    pq.write_table(
        pa.table({"digest": [text_digest("aa"), text_digest("cccc"), text_digest("aa"), None]}),
        tmp_path / "catalog.parquet",
    )
    targets = [target(tmp_path, "t", "cccc")]
    known, other = (
        KnownTexts("dedup.catalog", (tmp_path / "catalog.parquet",), content)
        for content in ("1", "2")
    )
    part, reasons = run(tmp_path, ("digest",), *two, known=(known,), targets=targets)
    assert reasons == {
        "a": ["gopher.words", None, "dedup.catalog", "dedup.digest"],
        "b": [None, "dedup.digest", "dedup.catalog", "dedup.target"],
    }
    assert (
        run(tmp_path, ("digest",), *two, known=(other,), targets=targets)[0].fingerprint
        != part.fingerprint
    )


def test_minhash_keeps_the_first_of_each_remaining_family(tmp_path, two):
    """b/1 and a/1 share a band, and b/3 and b/1 another one.

    a/2 and b/2 have the same band at different indices, which does not count.
    """
    a = signed(tmp_path, "a", [b"1", b"2"], [b"x", b"5"], [b"y", b"6"], [b"1", b"2"])
    b = signed(tmp_path, "b", None, [b"x", b"z"], [b"7", b"y"], [b"8", b"z"])
    part, reasons = run(tmp_path, ("minhash",), *two, signatures=(a, b))
    assert reasons == {
        "a": ["gopher.words", None, None, None],
        "b": [None, "dedup.minhash", None, "dedup.minhash"],
    }
    assert part.account.dropped == {"dedup.minhash": Tally(rows=2, characters=8)}
    # digest drops a/3, b/1 and b/2 first: what b/1 joined is apart
    _, reasons = run(tmp_path, ("digest", "minhash"), *two, signatures=(a, b))
    assert reasons == {
        "a": ["gopher.words", None, None, "dedup.digest"],
        "b": [None, "dedup.digest", "dedup.digest", None],
    }


def test_signatures_are_used_only_by_their_tier(tmp_path, two):
    a, b = signed(tmp_path, "a", *[[b"x"]] * 4), signed(tmp_path, "b", *[[b"x"]] * 4)
    with_them, reasons = run(tmp_path, ("digest",), *two, signatures=(a, b))
    assert "dedup.minhash" not in reasons["a"] + reasons["b"]
    assert run(tmp_path, ("digest", "semantic"), *two)[0].fingerprint == with_them.fingerprint
    with pytest.raises(ValueError, match="dedup: 1 parts of signatures for 2"):
        run(tmp_path, ("minhash",), *two, signatures=(a,))


def test_the_order_of_the_tiers_and_other_stages_settings_change_nothing(tmp_path, two):
    first, _ = run(tmp_path, ("shipped", "digest"), *two)
    again, _ = run(tmp_path, ("digest", "shipped"), *two, embed={"max_tokens": 8}, seed=3)
    assert again.fingerprint == first.fingerprint
    assert run(tmp_path, ("digest",), *two)[0].fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("edges", "dropped"),
    [
        ([], []),
        ([(0, 2)], [2]),
        ([(0, 2), (2, 5), (3, 4)], [2, 4, 5]),
        ([(1, 9), (0, 9), (1 << 45, 9)], [1, 9, 1 << 45]),
    ],
)
def test_all_members_of_a_component_except_the_smallest_are_later(edges, dropped):
    a, b = np.array(edges, np.int64).reshape(-1, 2).T
    members, firsts = later_members(a, b)
    assert members.tolist() == dropped
    assert all(first < member for first, member in zip(firsts, members, strict=True))
