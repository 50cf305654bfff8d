"""Accounts of stages: input, output, and dropped and failed documents by reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pydantic import Field, model_serializer

from data_catalog.errors import AccountingError
from data_catalog.settings import Settings


class Tally(Settings):
    """An amount of text."""

    rows: int = Field(default=0, ge=0)
    """Number of records."""
    characters: int = Field(default=0, ge=0)
    """Number of characters."""
    tokens: int = Field(default=0, ge=0)
    """Number of tokens. 0 before the sort stage."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            rows=self.rows + other.rows,
            characters=self.characters + other.characters,
            tokens=self.tokens + other.tokens,
        )


class Account(Settings):
    """`read = kept + sum(dropped[rule]) + sum(failed[kind])`, for rows, characters and tokens.

    A failed record whose text was never decoded counts zero characters on both sides.
    """

    read: Tally = Tally()
    """Input of the stage."""
    kept: Tally = Tally()
    """Output of the stage."""
    dropped: dict[str, Tally] = Field(default_factory=dict)
    """Dropped documents by rule."""
    failed: dict[str, Tally] = Field(default_factory=dict)
    """Failed records by kind of fault."""
    noted: dict[str, Tally] = Field(default_factory=dict)
    """Lines, fields and files that lost no document, by kind of note. Not part of the equation."""

    @model_serializer(mode="wrap")
    def _without_empty_notes(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Leave `noted` out where it is empty, as in accounts that were written before it."""
        content = handler(self)
        if not self.noted:
            content.pop("noted", None)
        return content

    def check(self, where: str) -> Account:
        """Check the equation and return self.

        Raises:
            AccountingError: The two sides differ.
        """
        out = sum((*self.dropped.values(), *self.failed.values()), self.kept)
        if out != self.read:
            raise AccountingError(
                f"{where}: read {self.read}, but kept, dropped and failed sum to {out}."
            )
        return self


def total(accounts: Iterable[Account]) -> Account:
    """Add the accounts of the parts of one stage."""
    read, kept = Tally(), Tally()
    dropped: dict[str, Tally] = {}
    failed: dict[str, Tally] = {}
    noted: dict[str, Tally] = {}
    for account in accounts:
        read, kept = read + account.read, kept + account.kept
        for sums, amounts in (
            (dropped, account.dropped),
            (failed, account.failed),
            (noted, account.noted),
        ):
            for name, tally in amounts.items():
                sums[name] = sums.get(name, Tally()) + tally
    return Account(read=read, kept=kept, dropped=dropped, failed=failed, noted=noted)
