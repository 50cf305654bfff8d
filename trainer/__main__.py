"""`python -m trainer CONFIG.toml [--set key.sub=value ...]`, or `torchrun -m trainer ...` for several processes."""

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from data_catalog.errors import UserError
from data_catalog.settings import load
from trainer.config import Train

_FAILURE_PREFIX = "clustermix: failed: "  # how a line begins that says what is wrong here, not with the request; a traceback is above it
_STOPPED_EXIT_CODE = 143  # the usual exit code of a process that SIGTERM ended: a checkpoint was written, the run is not finished


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Train on a catalog, from the last checkpoint if there is one.",
    )
    parser.add_argument("config", type=Path, help="a TOML file")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY.SUB=VALUE",
        help="change a setting",
    )
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        choices=["config", "catalog", "tokenizer"],
        help="go on although this changed",
    )
    chosen = parser.parse_args(arguments)
    os.environ.setdefault(
        "TORCH_CPP_LOG_LEVEL", "ERROR"
    )  # a notice of every process that Python cannot filter
    logging.basicConfig(format="%(levelname)s %(message)s")
    try:
        config = load(Train, chosen.config, chosen.overrides)
        from trainer.loop import train  # noqa: PLC0415 - a wrong config is refused before torch is imported

        return 0 if train(config, frozenset(chosen.accept)) else _STOPPED_EXIT_CODE
    except UserError as error:
        if (
            os.environ.get("RANK", "0") == "0"
        ):  # every process finds the same mistake: one sentence is enough
            sys.stderr.write(f"clustermix: {error}\n")
        return 2
    except Exception as error:
        traceback.print_exc()
        sys.stderr.write(f"{_FAILURE_PREFIX}{type(error).__name__}: {error}\n")
        return 1


if __name__ == "__main__":
    code = main()
    if (
        "RANK" in os.environ
    ):  # one of several: the ends of torch's communication objects can wait for each other for ever
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
