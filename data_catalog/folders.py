"""Folders of catalogs and runs: their names and contents. The cache of this program."""

import os
from pathlib import Path

from data_catalog.errors import UserError

# Schedulers and shells write the output of a command into its folder, such as slurm-123.out.
_LOG_ENDINGS = (".out", ".err", ".log")


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
