"""What a person reads when a command cannot be carried out or fails: one sentence. A traceback only with `--debug`."""

import re
import sys
import traceback

import typer

from data_catalog.errors import TrainingError, UserError
from data_catalog.suggest import suggestion

FAILED, REFUSED, INTERRUPTED = 1, 2, 130  # exit codes; 0 is done
OURS = ("data_catalog", "pipeline", "trainer", "flows")
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)  # a file's name may hold what a terminal obeys


def print_error(error: Exception, debug: bool = False) -> int:
    """Print the sentence to standard error; the exit code."""
    sentence, code = describe_error(error)
    if debug:
        traceback.print_exception(error)
    elif code == FAILED:
        sentence = f"{sentence.splitlines()[0] if sentence else 'failed'}; run again with --debug for the traceback"
    if sentence:  # none where the help was printed instead
        print(_CONTROLS.sub("\ufffd", f"clustermix: {sentence}"), file=sys.stderr)
    return code


def describe_error(error: Exception) -> tuple[str, int]:
    """A sentence, and the exit code."""
    match error:
        case UserError():
            return str(error), REFUSED
        case TrainingError():
            return str(error), FAILED
        case typer.TyperException():
            return _usage(error), error.exit_code
        case typer.Abort():
            return "given up", FAILED
        case ModuleNotFoundError() if (error.name or "").partition(".")[0] not in OURS:
            return (
                f"this command needs {error.name}, which is not installed: pip install 'clustermix[all]'",
                REFUSED,
            )
        case _:
            return f"failed: {type(error).__name__}: {error}", FAILED


def _usage(error: typer.TyperException) -> str:
    """Typer's own words, as a sentence that begins and ends like ours."""
    text = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    if not text or context is None:
        return text
    if choice := re.search(r"'([^']*)' is not one of (.*)", text):
        found, known = choice[1], re.findall(r"'([^']*)'", choice[2])
        text = f"{text}; {hint}" if (hint := suggestion(found, known)).endswith("?") else text
    return f"{text[0].lower()}{text[1:]}{'' if text.endswith('?') else ';'} see `{context.command_path} --help`"
