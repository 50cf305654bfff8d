from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog import tables
from data_catalog.records import Account, Tally
from pipeline.config import Build
from pipeline.dedup.exact import dedup
from pipeline.parts import Part, make_part
from pipeline.source import source_table
from pipeline.sources.documents import Document


def parts(root: Path, name: str, *rows: tuple[str, bool | None, str | None]) -> tuple[Part, Part]:
    """A source part and quality's verdict on it, from (text, shipped_duplicate, reason)."""
    table = source_table([Document(f"{name}/{i}", text, shipped_duplicate=shipped) for i, (text, shipped, _) in enumerate(rows)])
    verdicts = [
        {"id_int": number, "characters": len(text), "failed_rules": int(reason is not None), "reason": reason}
        for number, (text, _, reason) in zip(table["id_int"].to_pylist(), rows, strict=True)
    ]

    def source(out: Path) -> Account:
        pq.write_table(table, out / "documents.parquet")
        return Account()

    def judged(out: Path) -> Account:
        pq.write_table(pa.Table.from_pylist(verdicts, tables.VERDICTS), out / "verdicts.parquet")
        return Account()

    return make_part(root / "source" / name, f"source {rows}", source), make_part(root / "quality" / name, f"quality {rows}", judged)


def run(root: Path, tiers: tuple[str, ...], *made: tuple[Part, Part]) -> tuple[Part, dict[str, list[str | None]]]:
    config = Build.model_validate({"out": "out", "source": {"kind": "jsonl", "path": "x"}, "dedup": {"tiers": tiers}})
    part = dedup([source for source, _ in made], [judged for _, judged in made], root / "dedup" / "-".join(("by", *tiers)), config)
    files = sorted(part.folder.glob("*.parquet"))
    assert all(pq.read_table(file).schema.equals(tables.VERDICTS) for file in files)
    return part, {file.stem: pq.read_table(file)["reason"].to_pylist() for file in files}


@pytest.fixture
def two(tmp_path):
    """`same` is there four times: dropped by quality, listed as a copy, and kept in both parts."""
    a = parts(tmp_path, "a", ("same", False, "gopher.words"), ("same", True, None), ("aa", None, None), ("same", False, None))
    b = parts(tmp_path, "b", ("bbb", True, None), ("same", False, None), ("aa", None, None), ("cccc", None, None))
    return a, b


def test_digest_keeps_the_first_that_quality_kept(tmp_path, two):
    part, reasons = run(tmp_path, ("digest",), *two)
    assert reasons == {
        "a": ["gopher.words", None, None, "dedup.digest"],
        "b": [None, "dedup.digest", "dedup.digest", None],
    }
    assert part.account == Account(
        read=Tally(rows=7, characters=23), kept=Tally(rows=4, characters=13), dropped={"dedup.digest": Tally(rows=3, characters=10)}
    )


def test_shipped_drops_what_the_corpus_lists(tmp_path, two):
    part, reasons = run(tmp_path, ("shipped",), *two)
    assert reasons == {"a": ["gopher.words", "dedup.shipped", None, None], "b": ["dedup.shipped", None, None, None]}
    assert part.account.dropped == {"dedup.shipped": Tally(rows=2, characters=7)}


def test_both_tiers_count_a_copy_once_and_digest_sees_what_shipped_left(tmp_path, two):
    part, reasons = run(tmp_path, ("shipped", "digest"), *two)
    assert reasons == {
        "a": ["gopher.words", "dedup.shipped", None, None],
        "b": ["dedup.shipped", "dedup.digest", "dedup.digest", None],
    }
    assert part.account == Account(
        read=Tally(rows=7, characters=23),
        kept=Tally(rows=3, characters=10),
        dropped={"dedup.shipped": Tally(rows=2, characters=7), "dedup.digest": Tally(rows=2, characters=6)},
    )


def test_without_tiers_quality_has_the_last_word(tmp_path, two):
    part, reasons = run(tmp_path, (), *two)
    assert reasons == {"a": ["gopher.words", None, None, None], "b": [None, None, None, None]}
    assert part.account.read == part.account.kept == Tally(rows=7, characters=23)


def test_the_other_columns_and_the_order_stay_and_nothing_else_is_left_behind(tmp_path, two):
    part, _ = run(tmp_path, ("digest",), *two)
    before = pq.read_table(two[0][1].folder / "verdicts.parquet").drop_columns("reason")
    assert pq.read_table(part.folder / "a.parquet").drop_columns("reason").equals(before)
    assert sorted(path.name for path in part.folder.iterdir()) == ["a.parquet", "b.parquet", "part.json"]


def test_shipped_without_any_list_warns(tmp_path, caplog):
    run(tmp_path, ("shipped",), parts(tmp_path, "a", ("x", None, None)))
    assert "this tier drops nothing; use digest" in caplog.text


@pytest.mark.parametrize("tiers", [("digest",), ("shipped", "digest")])
def test_empty_parts(tmp_path, tiers):
    part, reasons = run(tmp_path, tiers, parts(tmp_path, "a"), parts(tmp_path, "b", ("x", None, None)))
    assert reasons == {"a": [], "b": [None]}
    assert part.account.kept == Tally(rows=1, characters=1)


def test_parts_that_do_not_match_are_refused(tmp_path, two):
    with pytest.raises(ValueError, match="expected one verdict for each of 2 parts"):
        run(tmp_path, ("digest",), two[0], two[0])
