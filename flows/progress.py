"""Progress on a terminal as bars, elsewhere as one line a stage. All of it goes to standard error."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from time import perf_counter

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True)
QUIET_SECONDS = (
    1.0  # seconds: what is over by then says nothing afterwards, where it says so at all
)


def format_rate(done: float, seconds: float, unit: str) -> str:
    """Such as `12.5 parts/s`; what is slow by the minute. Empty before anything is done."""
    if done <= 0 or seconds <= 0:
        return ""
    each = done / seconds
    return (
        f"{each:,.{0 if each >= 100 else 1}f} {unit}/s"
        if each >= 0.5
        else f"{60 * each:,.1f} {unit}/min"
    )


@contextmanager
def progress_bar(
    name: str, total: int, unit: str = "parts", quiet: bool = False
) -> Iterator[Callable[[int, str], None]]:
    """Yield `advance(steps, note)`. A terminal shows what is done, the rate and the time that remains.

    Args:
        unit: of a step, in the plural.
        quiet: say nothing where there is no terminal and it took less than `QUIET_SECONDS`.
    """
    started = perf_counter()
    done, last = 0, ""

    def beside(note: str) -> str:
        return ", ".join(
            text for text in (format_rate(done, perf_counter() - started, unit), note) if text
        )

    if console.is_terminal:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:<22}"),
            BarColumn(30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}", markup=True),
        )
        with Progress(*columns, console=console) as progress:
            shown = progress.add_task(name, total=total, note="")

            def advance(steps: int, note: str) -> None:
                nonlocal done
                done += steps
                progress.update(shown, advance=steps, note=beside(note))

            yield advance
        return

    def count(steps: int, note: str) -> None:
        nonlocal done, last
        done, last = done + steps, note

    yield count
    seconds = perf_counter() - started
    if not quiet or seconds >= QUIET_SECONDS:
        line = ", ".join(
            text
            for text in (f"{name}: {done:,} of {total:,} in {seconds:.1f} s", beside(last))
            if text
        )
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress_callback(
    name: str, unit: str, size: float = 1
) -> Iterator[Callable[[int, int], None]]:
    """Yield `said(done, total)` for a function that says how far it is: a bar from its first word on.

    Args:
        size: of a unit, in what is counted: 1e6 and `"MB"` for bytes.
    """
    advance: Callable[[int, str], None] | None = None
    shown = 0
    with ExitStack() as stack:

        def said(done: int, total: int) -> None:
            nonlocal advance, shown
            if advance is None:
                advance = stack.enter_context(
                    progress_bar(name, round(total / size), unit, quiet=True)
                )
            advance(round(done / size) - shown, "")
            shown = round(done / size)

        yield said


def spinner(what: str) -> AbstractContextManager[object]:
    """A sign of life on a terminal for what cannot say how far it is."""
    return console.status(what)


@contextmanager
def transfer_progress(said: str) -> Iterator[Callable[[int, int, int], None]]:
    """Yield `advance(a, b, bytes)` for a download, `said` with the two numbers: one line, on a terminal while it lasts."""
    started = perf_counter()
    last = (0, 0, 0)

    def line() -> str:
        megabytes = last[2] / 1e6
        return f"{said.format(*last)}, {megabytes:,.1f} MB, {megabytes / max(perf_counter() - started, 1e-3):,.1f} MB/s"

    with console.status("asking for sizes") as status:

        def advance(done: int, total: int, size: int) -> None:
            nonlocal last
            last = (done, total, size)
            status.update(line())

        yield advance
    if last[0]:
        console.print(line(), highlight=False, soft_wrap=True)
