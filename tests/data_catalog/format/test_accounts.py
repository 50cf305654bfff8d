import pytest

from data_catalog.errors import AccountingError
from data_catalog.format.accounts import Account, Tally, total


def test_an_account_that_adds_up():
    account = Account(
        read=Tally(rows=5, characters=50),
        kept=Tally(rows=3, characters=30),
        dropped={"short": Tally(rows=1, characters=20)},
        failed={"not_json": Tally(rows=1)},
    )
    assert account.check("here") is account


@pytest.mark.parametrize("kept", [Tally(rows=2, characters=30), Tally(rows=3, characters=29)])
def test_a_lost_row_or_character_is_an_error(kept):
    with pytest.raises(AccountingError, match="here: read"):
        Account(read=Tally(rows=3, characters=30), kept=kept).check("here")


def test_total_adds_reasons_by_name():
    a = Account(read=Tally(rows=2), kept=Tally(rows=1), dropped={"x": Tally(rows=1)})
    b = Account(
        read=Tally(rows=3),
        kept=Tally(rows=1),
        dropped={"x": Tally(rows=1)},
        failed={"y": Tally(rows=1)},
    )
    assert total([a, b]) == Account(
        read=Tally(rows=5),
        kept=Tally(rows=2),
        dropped={"x": Tally(rows=2)},
        failed={"y": Tally(rows=1)},
    )
