"""Read the small JSON files that describe a catalog, a run or a part: every key is checked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    model_validator,
)

from data_catalog.errors import UserError
from data_catalog.format.damage import reading


class Record(BaseModel):
    """A JSON file as a frozen, strict model. Values have one type and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class WholeRecord(Record):
    """A record that has every key, also in its tables, even where the model has a default."""

    @model_validator(mode="wrap")
    @classmethod
    def _is_whole(cls, content: Any, handler: Callable[[Any], "WholeRecord"]) -> "WholeRecord":
        record = handler(content)
        if isinstance(content, dict) and (path := _missing(record.model_dump(), content)):
            raise ValueError(f"{path} is missing")
        return record


def _missing(expected: dict[str, Any], content: dict[str, Any]) -> str:
    """Return the dotted name of the first key of `expected` that `content` lacks, or ""."""
    for key, value in expected.items():
        if key not in content:
            return key
        if isinstance(content[key], dict) and (inner := _missing(value, content[key])):
            return f"{key}.{inner}"
    return ""


RecordType = TypeVar("RecordType", bound=BaseModel)


def parse_record(model: type[RecordType], text: bytes, place: str, remedy: str) -> RecordType:
    """Validate the text of a JSON file.

    Args:
        place: The file, as an error message names it.
        remedy: A sentence that says what to do about a damaged file.

    Raises:
        UserError: The text is not JSON, or a key is missing, unknown, of another type or out of
            range. The message names the file and the first such key.
    """
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        first, count = error.errors()[0], error.error_count()
        key = ".".join(str(step) for step in first["loc"]) or "not valid JSON"
        more = f" ({count - 1} more keys are wrong)" if count > 1 else ""
        message = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise UserError(f"{place}: {key}: {message}{more}. {remedy}") from error


def read_record(model: type[RecordType], path: Path, remedy: str) -> RecordType:
    """Read a JSON file. See `parse_record` for the arguments.

    Raises:
        UserError: The file cannot be read, or `parse_record` refuses it.
    """
    with reading(path, remedy):
        text = path.read_bytes()
    return parse_record(model, text, str(path), remedy)
