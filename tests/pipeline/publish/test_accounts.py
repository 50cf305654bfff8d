import pyarrow as pa
import pytest

from data_catalog.errors import AccountingError
from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from pipeline.publish.accounts import (
    CHAIN,
    accounting_table,
    check_chain,
    check_reachable,
    read_accounts,
)

FULL = Account(
    read=Tally(rows=3, characters=9),
    kept=Tally(rows=2, characters=6),
    dropped={"gopher.words": Tally(rows=1, characters=3)},
)
REST = Account(read=FULL.kept, kept=FULL.kept)
STORED = Account(
    read=Tally(rows=2, characters=6, tokens=4), kept=Tally(rows=2, characters=6, tokens=4)
)
GOOD = {
    stage: FULL if stage == "source" else STORED if stage in {"sort", "shard"} else REST
    for stage in CHAIN
}


def test_a_chain_without_loss():
    check_chain(GOOD)
    check_chain({stage: account for stage, account in GOOD.items() if stage != "semantic"})


@pytest.mark.parametrize(
    ("stage", "amount", "message"),
    [
        (
            "quality",
            Tally(rows=2, characters=5),
            r"source kept .*characters=6.* but quality read .*characters=5",
        ),
        (
            "semantic",
            Tally(rows=1, characters=6),
            r"assign kept .*rows=2.* but semantic read .*rows=1",
        ),
        ("sort", Tally(rows=1, characters=6), r"semantic kept .*rows=2.* but sort read .*rows=1"),
        (
            "shard",
            Tally(rows=2, characters=6, tokens=3),
            r"sort kept .*tokens=4.* but shard read .*tokens=3",
        ),
    ],
)
def test_a_loss_between_two_stages_is_an_error(stage, amount, message):
    with pytest.raises(AccountingError, match=message):
        check_chain(GOOD | {stage: Account(read=amount, kept=amount)})


def offsets(rows, tokens):
    row = {
        "leaf": 0,
        "split": "train",
        "top": 0,
        "part": 0,
        "first_row": 0,
        "rows": rows,
        "first_token": 0,
        "tokens": tokens,
    }
    return pa.Table.from_pylist([row], tables.OFFSETS)


def test_offsets_cover_all_stored_documents():
    check_reachable(offsets(2, 4), STORED)
    check_reachable(tables.OFFSETS.empty_table(), Account())
    for rows, tokens in ((1, 4), (2, 3)):
        with pytest.raises(AccountingError, match=f"offsets reach rows={rows} tokens={tokens}"):
            check_reachable(offsets(rows, tokens), STORED)


def test_the_accounting_table_names_every_outcome():
    rows = [
        (r["outcome"], r["reason"], r["rows"], r["characters"])
        for r in accounting_table({"quality": FULL}).to_pylist()
    ]
    assert rows == [("read", None, 3, 9), ("kept", None, 2, 6), ("dropped", "gopher.words", 1, 3)]


def test_accounts_are_read_back():
    accounts = {
        "source": Account(
            read=Tally(rows=2), kept=Tally(rows=1), failed={"no_text": Tally(rows=1)}
        ),
        "quality": FULL,
        "sort": STORED,
    }
    assert read_accounts(accounting_table(accounts)) == accounts
