from data_catalog.format.accounts import Account, Tally
from pipeline.publish.next_version import join_accounts


def passing(rows: int) -> Account:
    return Account(read=Tally(rows=rows), kept=Tally(rows=rows))


def test_accounts_are_added_stage_by_stage():
    before = {"source": passing(5), "assign": passing(4), "sort": passing(4)}
    new = {
        "source": Account(
            read=Tally(rows=3), kept=Tally(rows=2), failed={"no_text": Tally(rows=1)}
        ),
        "assign": passing(2),
        "sort": passing(2),
    }
    assert join_accounts(before, new) == {
        "source": Account(
            read=Tally(rows=8), kept=Tally(rows=7), failed={"no_text": Tally(rows=1)}
        ),
        "assign": passing(6),
        "sort": passing(6),
    }


def test_a_tier_that_one_account_lacks_keeps_all_documents():
    semantic = Account(
        read=Tally(rows=4), kept=Tally(rows=3), dropped={"dedup.semantic": Tally(rows=1)}
    )
    plain = {"source": passing(2), "assign": passing(2), "sort": passing(2)}
    tiered = {"source": passing(4), "assign": passing(4), "semantic": semantic, "sort": passing(3)}
    expected = Account(
        read=Tally(rows=6), kept=Tally(rows=5), dropped={"dedup.semantic": Tally(rows=1)}
    )
    assert (
        join_accounts(plain, tiered)["semantic"]
        == join_accounts(tiered, plain)["semantic"]
        == expected
    )
    assert list(join_accounts(plain, tiered)) == ["source", "assign", "semantic", "sort"]


def test_targets_alone_change_no_account():
    before = {"source": passing(5), "shard": passing(4)}
    assert join_accounts(before, {"shard": Account()}) == before
