"""The file beside a target's documents that says which encoder embedded them."""

from typing import Annotated

from pydantic import Field

from data_catalog.format.encoder_identity import Identity
from data_catalog.format.records import Record

TARGET_RECORD = "target.json"


class TargetRecord(Record):
    """The contents of `target.json`."""

    name: Annotated[str, Field(min_length=1)]
    encoder: Identity
