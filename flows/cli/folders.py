"""The kind of folder that a command is given: a catalog or a run."""

from data_catalog.errors import UserError
from data_catalog.place import Folder


def holds_run(folder: Folder) -> bool:
    """Return true for the folder of a run, and false for that of a catalog.

    Raises:
        UserError: It is neither.
    """
    from data_catalog.format.layout import MANIFEST
    from data_catalog.format.run_record import RUN_RECORD

    if (folder / MANIFEST).exists():
        return False
    if (folder / RUN_RECORD).exists():
        return True
    raise UserError(
        f"{folder}: no catalog and no run here ({MANIFEST} and {RUN_RECORD} are missing). "
        "Name the folder of a catalog, or of a run that `clustermix train` wrote."
    )
