import pytest

from data_catalog.errors import AccountingError
from data_catalog.records import Account, Tally
from pipeline.catalog import CHAIN, accounting_table, check_chain

FULL = Account(read=Tally(rows=3, characters=9), kept=Tally(rows=2, characters=6), dropped={"gopher.words": Tally(rows=1, characters=3)})
REST = Account(read=FULL.kept, kept=FULL.kept)


def test_a_chain_without_loss():
    check_chain({stage: FULL if stage == "source" else REST for stage in CHAIN})


def test_a_document_lost_between_two_stages_is_an_error():
    short = Account(read=Tally(rows=1, characters=6), kept=Tally(rows=1, characters=6))
    accounts = dict.fromkeys(CHAIN, REST) | {"shard": short}
    with pytest.raises(AccountingError, match=r"sort kept .*rows=2.* but shard read .*rows=1"):
        check_chain(accounts)


def test_the_accounting_table_names_every_outcome():
    rows = [(r["outcome"], r["reason"], r["rows"], r["characters"]) for r in accounting_table({"quality": FULL}).to_pylist()]
    assert rows == [("read", None, 3, 9), ("kept", None, 2, 6), ("dropped", "gopher.words", 1, 3)]
