"""Files in a folder that a new catalog or run must not be written beside."""

from pathlib import Path

# Schedulers and shells write the output of a command into its folder, such as slurm-123.out.
_LOG_ENDINGS = (".out", ".err", ".log")


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
