"""Check the folder of a catalog before any work starts."""

from data_catalog.errors import UserError
from data_catalog.folders import check_utf8_path, foreign_names
from data_catalog.format.layout import MANIFEST, WORK
from data_catalog.place import Folder, Place


def check_out_folder(out: Folder) -> None:
    """Check that a catalog may be written here: the folder is new, empty but for logs, or its own.

    A folder of a build that was stopped has a work folder.

    Raises:
        UserError: The folder holds something else, its path is not UTF-8, or the store
            cannot be read.
    """
    if isinstance(out, Place):
        others = out.names()
    else:
        if out.exists() and not out.is_dir():
            raise UserError(f"out {out}: not a folder. Set another `out`.")
        check_utf8_path(out, "out")
        others = foreign_names(out)
    own = {MANIFEST, WORK, "versions"}
    if others and not own & {*others}:
        raise UserError(
            f"out {out}: the folder holds {others[0]} and is not a catalog. "
            "Set another `out`, or empty the folder."
        )
