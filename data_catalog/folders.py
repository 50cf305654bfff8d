"""Folders of catalogs and runs: their names and contents. The cache of this program."""

import os
import re
from pathlib import Path, PurePath

from data_catalog.errors import UserError

# Schedulers and shells write the output of a command into its folder, such as slurm-123.out.
_LOG_ENDINGS = (".out", ".err", ".log")
# Also a URL that `pathlib` has parsed, of which one slash is left, and a chained one.
_URL = re.compile(r"((?:[A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
URL_REMEDY = (
    "`clustermix fetch catalog URL FOLDER` fetches a catalog, and "
    "`clustermix export catalog FOLDER URL` exports one"
)


def cache_folder() -> Path:
    """Return the folder of this program's files in the user's cache, which need not exist."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():
        cache = Path(os.path.expanduser("~")) / ".cache"
    return cache / "clustermix"


def foreign_names(folder: Path) -> list[str]:
    """Return the names in a folder, without hidden ones and logs of commands, in order.

    A folder that does not exist has none.
    """
    if not folder.is_dir():
        return []
    return sorted(
        path.name
        for path in folder.iterdir()
        if not path.name.startswith(".")
        and not (path.name.endswith(_LOG_ENDINGS) and path.is_file())
    )


def check_utf8_path(folder: Path, key: str) -> None:
    """Check that the real path of a folder is UTF-8, as DuckDB and JSON need it.

    Args:
        folder: The folder, which need not exist.
        key: What the folder is, for the error.

    Raises:
        UserError: It is not.
    """
    path = os.fsencode(os.path.realpath(folder))
    try:
        path.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{key} {path.decode('utf-8', 'backslashreplace')}: this path is not UTF-8 "
            f"(byte {error.start}). Rename the folder."
        ) from None


def is_url(path: str | PurePath) -> bool:
    """Return whether a path is a URL.

    `pathlib` takes `s3://bucket/x` for a relative path, so that a folder `s3:` would be made.
    """
    return _URL.fullmatch(str(path)) is not None


def as_url(path: str | PurePath) -> str | None:
    """Return the URL that a path is, with both slashes, or None if it is none."""
    text = str(path)
    if not is_url(text) or "://" in text:
        return text if is_url(text) else None
    scheme, _, rest = text.partition(":/")
    return f"{scheme}://{'/' if scheme in {'file', 'local'} else ''}{rest}"


def refuse_url(path: str | PurePath, key: str) -> None:
    """Check that a path is no URL.

    Args:
        path: The path.
        key: What the path is, for the error.

    Raises:
        UserError: It is a URL, also one of `file://`.
    """
    if url := as_url(path):
        raise UserError(
            f"{key}: found the URL {url}. Expected a folder on this machine: {URL_REMEDY}."
        )
