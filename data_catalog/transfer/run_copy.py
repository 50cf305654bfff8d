"""The small files of a run in a store, as a folder on this machine that pages and tables read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from data_catalog.format.run_files import CHECKSUMS, RUN_FILES
from data_catalog.format.run_record import read_run_record
from data_catalog.place import Folder
from data_catalog.transfer.several import for_each


@contextmanager
def local_run(run: Folder) -> Iterator[Path]:
    """Yield the folder of a run, or for a run in a store a temporary copy without models.

    An unfinished run in a store is as it was at its last checkpoint.

    Raises:
        UserError: There is no run, or the store cannot be read.
    """
    if isinstance(run, Path):
        yield run
        return
    read_run_record(run)
    with TemporaryDirectory(prefix="clustermix-") as temporary:
        folder = Path(temporary) / run.name
        folder.mkdir()

        def get(name: str) -> None:
            if (content := (run / name).read()) is not None:
                (folder / name).write_bytes(content)

        for_each(get, (*RUN_FILES, CHECKSUMS))
        yield folder
