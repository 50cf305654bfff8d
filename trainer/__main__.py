"""Command `python -m trainer CONFIG.toml [--set key.sub=value ...]`.

For several processes, run `torchrun -m trainer ...`.
"""

import argparse
import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from data_catalog.disk import describe_disk_failure
from data_catalog.errors import UserError
from data_catalog.settings import load
from data_catalog.transfer.ranges import StoreError
from trainer.config import Train

# Start of the last line after an unexpected error, below the traceback.
_FAILURE_PREFIX = "clustermix: failed: "
# Usual exit code after SIGTERM: a checkpoint was written, and the run is not finished.
_STOPPED_EXIT_CODE = 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Train on a catalog, from the last checkpoint if there is one.",
    )
    parser.add_argument("config", type=Path, help="TOML file with the config")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY.SUB=VALUE",
        help="override a setting",
    )
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        choices=["config", "catalog", "tokenizer"],
        help="resume although this changed",
    )
    parser.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="do not compare the checksums of the catalog's files",
    )
    for stream in (sys.stdout, sys.stderr):  # in any locale, no character fails
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    chosen = parser.parse_args(arguments)
    # Hides a notice of every process that Python cannot filter.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    logging.basicConfig(format="%(levelname)s %(message)s")
    try:
        config = load(Train, chosen.config, chosen.overrides)
        # Imported late, so that an invalid config is refused before torch is imported.
        from trainer.loop import train  # noqa: PLC0415

        return 0 if train(config, frozenset(chosen.accept), chosen.verify) else _STOPPED_EXIT_CODE
    except UserError as error:
        # Every process raises the same error, and only one of each machine prints it. A store can
        # fail for a single process.
        if os.environ.get("LOCAL_RANK", "0") == "0" or isinstance(error, StoreError):
            sys.stderr.write(f"clustermix: {error}\n")
        return 2
    except Exception as error:
        if sentence := describe_disk_failure(error):  # of this process alone
            sys.stderr.write(f"clustermix: {sentence}\n")
            return 2
        traceback.print_exc()
        sys.stderr.write(f"{_FAILURE_PREFIX}{type(error).__name__}: {error}\n")
        return 1


if __name__ == "__main__":
    code = main()
    if "RANK" in os.environ:
        # One of several processes: destructors of torch's communication objects can deadlock.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
