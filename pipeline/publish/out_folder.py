"""Check the folder of a catalog before any work starts."""

from data_catalog.errors import UserError
from data_catalog.folders import check_utf8_path, foreign_names
from data_catalog.format.layout import MANIFEST, Layout


def check_out_folder(layout: Layout) -> None:
    """Check that a catalog may be written here: the folder is new, empty but for logs, or its own.

    A folder of a build that was stopped has a work folder.

    Raises:
        UserError: The folder holds something else, or its path is not UTF-8.
    """
    root = layout.root
    if root.exists() and not root.is_dir():
        raise UserError(f"out {root}: not a folder. Set another `out`.")
    check_utf8_path(root, "out")
    own = {MANIFEST, layout.work.name, layout.tables.parent.name}
    others = foreign_names(root)
    if others and not own & {*others}:
        raise UserError(
            f"out {root}: the folder holds {others[0]} and is not a catalog. "
            "Set another `out`, or empty the folder."
        )
