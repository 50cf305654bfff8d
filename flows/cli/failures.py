"""Error messages of the command line: one sentence each, with a traceback only for `--debug`."""

import re
import sys
import traceback
from importlib.metadata import packages_distributions

import typer

from data_catalog.disk import describe_disk_failure
from data_catalog.errors import TrainingError, UserError, suggestion

FAILED, REFUSED, OUTPUT_CLOSED = 1, 2, 141  # exit codes
OWN_PACKAGES = ("data_catalog", "pipeline", "trainer", "flows")
# File names may contain control characters, which a terminal would obey.
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def print_error(error: Exception, debug: bool = False) -> int:
    """Print the message of `error` to standard error and return the exit code."""
    sentence, code = describe_error(error)
    if debug:
        traceback.print_exception(error)
    elif code == FAILED:
        first_line = (sentence.splitlines() or ["failed"])[0]
        sentence = f"{first_line.rstrip('.')}. Run again with --debug for the traceback."
    if sentence:  # empty if the help was printed instead
        print(_CONTROL_CHARACTERS.sub("\ufffd", f"clustermix: {sentence}"), file=sys.stderr)
    return code


def describe_error(error: Exception) -> tuple[str, int]:
    """Return the message of `error` and the exit code."""
    match error:
        case UserError():
            return str(error), REFUSED
        case TrainingError():
            return str(error), FAILED
        case typer.TyperException():
            return _usage(error), error.exit_code
        case typer.Abort():
            return "aborted", FAILED
        case ImportError() if sentence := _missing_package(error):
            return sentence, REFUSED
        case _:
            reason = describe_disk_failure(error)
            failure = (f"failed: {type(error).__name__}: {error}", FAILED)
            return (reason, REFUSED) if reason else failure


def _missing_package(error: ImportError) -> str:
    """Return what to install or to remove, or an empty text if the import failed otherwise."""
    name = (error.name or "").partition(".")[0]
    if name not in OWN_PACKAGES:
        if not isinstance(error, ModuleNotFoundError):
            return ""
        return (
            f"{error.name}: not installed, but this command needs it. "
            "Run: pip install 'clustermix[all]'"
        )
    owners = {owner for owner in packages_distributions().get(name, ()) if owner != "clustermix"}
    if not owners:
        return ""
    return (
        f"{name}: the package {min(owners)} has installed files of the same name over those of "
        "clustermix. Install clustermix in an environment of its own."
    )


def _usage(error: typer.TyperException) -> str:
    """Return Typer's message as a sentence that points to the help."""
    text = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    if not text or context is None:
        return text
    if choice := re.search(r"'([^']*)' is not one of (.*)", text):
        value, known = choice[1], re.findall(r"'([^']*)'", choice[2])
        hint = suggestion(value, known)
        if hint.endswith("?"):
            text = f"{text}. {hint}"
    end = "" if text.endswith("?") else "."
    return f"{text[0].lower()}{text[1:]}{end} See `{context.command_path} --help`."
