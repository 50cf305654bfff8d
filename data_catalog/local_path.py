"""Paths on this machine, for what is not read from or written to URLs: catalogs, runs and files.

`pathlib` takes `s3://bucket/x` for a relative path, so that a folder `s3:` would be made.
`LocalPath` is the type of such a field of a config, and `refuse_url` checks other paths.
"""

import re
from pathlib import Path, PurePath
from typing import Annotated, Any

from pydantic import BeforeValidator

from data_catalog.errors import UserError

# Also a URL that `pathlib` has parsed, of which one slash is left, and a chained one.
_URL = re.compile(r"((?:[A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
_REMEDY = (
    "`clustermix fetch catalog URL FOLDER` fetches a catalog, and "
    "`clustermix export catalog FOLDER URL` exports one"
)


def refuse_url(path: str | PurePath, key: str) -> None:
    """Check that a path is no URL.

    Args:
        path: The path.
        key: What the path is, for the error.

    Raises:
        UserError: It is a URL, also one of `file://`.
    """
    if url := _URL.fullmatch(str(path)):
        raise UserError(
            f"{key}: found the URL {url[1]}://{url[2]}. Catalogs, runs and configs are read from "
            f"and written to local folders: {_REMEDY}."
        )


def _no_url(value: Any) -> Any:
    if isinstance(value, str | PurePath) and _URL.fullmatch(str(value)):
        raise ValueError(f"expected a path on this machine, not a URL ({_REMEDY})")
    return value


LocalPath = Annotated[Path, BeforeValidator(_no_url)]
"""A path that is no URL. To name a folder such as `a:/b`, give its absolute path."""
