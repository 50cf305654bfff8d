"""Parts: one folder of one stage's output each, with a sidecar that records its inputs.

A part is done if and only if its sidecar is there and has the expected fingerprint.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_catalog.format.accounts import Account
from data_catalog.format.lock import sole_holder
from data_catalog.format.manifest import replacing, write_json

SIDECAR = "part.json"


@dataclass(frozen=True)
class Part:
    """A finished part, as later stages receive it."""

    folder: Path
    fingerprint: str
    account: Account
    seconds: float  # that making it took

    @property
    def name(self) -> str:
        return self.folder.name


def make_part(folder: Path, fingerprint: str, make: Callable[[Path], Account]) -> Part:
    """Return the part at `folder`, making it if its sidecar has another fingerprint or is missing.

    `make` writes the part's files into a temporary folder, which is then renamed, and returns the
    account, which must add up. A process killed at any point leaves either the finished part or
    nothing that counts.
    """
    done = read_part(folder)
    if done is not None and done.fingerprint == fingerprint:
        return done
    started = time.perf_counter()
    with replacing(folder) as temporary:
        temporary.mkdir()
        account = make(temporary).check(f"{folder.parent.name}/{folder.name}")
        seconds = time.perf_counter() - started
        write_json(
            temporary / SIDECAR,
            {"fingerprint": fingerprint, "account": account, "seconds": seconds},
        )
    return Part(folder, fingerprint, account, seconds)


@contextmanager
def sole_builder(work: Path) -> Iterator[None]:
    """Hold a work folder for one build and remove temporary folders of killed builds.

    Finished parts are not touched.

    Raises:
        UserError: another build is running in the folder.
    """
    with sole_holder(
        work,
        f"{work.parent}: another build is running here. Wait for it to end, or set another `out`.",
    ):
        for begun in work.glob("*/.*.tmp"):
            shutil.rmtree(begun, ignore_errors=True)
        yield


def read_part(folder: Path) -> Part | None:
    """Return the finished part at `folder`, or None."""
    try:
        sidecar = json.loads((folder / SIDECAR).read_text(encoding="utf-8"))
        return Part(
            folder,
            sidecar["fingerprint"],
            Account.model_validate(sidecar["account"]),
            sidecar["seconds"],
        )
    except (OSError, ValueError, KeyError):
        return None
