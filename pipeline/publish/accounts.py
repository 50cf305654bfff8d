"""Check that every stage read exactly the documents that the one before it kept.

The offsets must reach exactly what the last stage kept.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.errors import AccountingError
from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally, total
from pipeline.source.documents import Fault
from pipeline.source.stage import account_of

# Stages in order. A build may leave out `semantic`.
CHAIN = (
    "source",
    "quality",
    "dedup",
    "embed",
    "assign",
    "semantic",
    "sort",
    "shard",
)
COUNTED = ("sort", "shard")  # stages that count tokens


def check_chain(accounts: Mapping[str, Account]) -> None:
    """Check that every stage read what the one before it kept, in rows, characters and tokens.

    Tokens count from the stage that makes them.

    Raises:
        AccountingError: A stage did not.
    """
    for before, after in pairwise(stage for stage in CHAIN if stage in accounts):
        kept, read = accounts[before].kept, accounts[after].read
        if before not in COUNTED:
            read = read.model_copy(update={"tokens": kept.tokens})
        if kept != read:
            raise AccountingError(f"{before} kept {kept} but {after} read {read}.")


def check_reachable(offsets: pa.Table, stored: Account) -> None:
    """Check that offsets (tables.OFFSETS) reach what the last stage stored, in rows and tokens.

    Raises:
        AccountingError: They do not.
    """
    rows, tokens = (pc.sum(offsets[name]).as_py() or 0 for name in ("rows", "tokens"))
    if (rows, tokens) != (stored.kept.rows, stored.kept.tokens):
        raise AccountingError(
            f"shard kept {stored.kept} but offsets reach rows={rows} tokens={tokens}."
        )


def with_notes(accounts: Mapping[str, Account], notes: Iterable[Fault]) -> dict[str, Account]:
    """Return the accounts with notes on the files of the corpus added to that of source."""
    if "source" not in accounts:
        return dict(accounts)
    noted = account_of(Tally(), notes)
    return {**accounts, "source": total((accounts["source"], noted))}


def accounting_table(accounts: Mapping[str, Account]) -> pa.Table:
    """Return one row per stage and outcome (tables.ACCOUNTING)."""
    rows = []
    for stage, account in accounts.items():
        amounts: list[tuple[str, str | None, Tally]] = [
            ("read", None, account.read),
            ("kept", None, account.kept),
        ]
        amounts += [("dropped", reason, tally) for reason, tally in sorted(account.dropped.items())]
        amounts += [("failed", reason, tally) for reason, tally in sorted(account.failed.items())]
        amounts += [("noted", reason, tally) for reason, tally in sorted(account.noted.items())]
        rows += [
            {"stage": stage, "outcome": outcome, "reason": reason, **tally.model_dump()}
            for outcome, reason, tally in amounts
        ]
    return pa.Table.from_pylist(rows, tables.ACCOUNTING)


def read_accounts(table: pa.Table) -> dict[str, Account]:
    """Return the accounts from a table of `accounting_table`."""
    accounts: dict[str, dict[str, object]] = {}
    for row in table.to_pylist():
        tally = Tally(rows=row["rows"], characters=row["characters"], tokens=row["tokens"])
        account = accounts.setdefault(row["stage"], {"dropped": {}, "failed": {}, "noted": {}})
        if row["outcome"] in {"read", "kept"}:
            account[row["outcome"]] = tally
        else:
            account[row["outcome"]][row["reason"]] = tally  # type: ignore[index]
    return {stage: Account.model_validate(account) for stage, account in accounts.items()}
