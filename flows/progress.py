"""Progress on standard error: bars on a terminal, elsewhere one line per stage."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Timer
from time import perf_counter

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

console = Console(stderr=True)
QUIET_SECONDS = 1.0  # a quiet operation that takes less prints nothing


def format_rate(done: float, seconds: float, unit: str) -> str:
    """Return a rate such as `12.5 parts/s`, or per minute if it is low. Empty if `done` is 0."""
    if done <= 0 or seconds <= 0:
        return ""
    per_second = done / seconds
    if per_second < 0.5:
        return f"{60 * per_second:,.1f} {unit}/min"
    return f"{per_second:,.{0 if per_second >= 100 else 1}f} {unit}/s"


@contextmanager
def progress_bar(
    name: str, total: int, unit: str = "parts", quiet: bool = False
) -> Iterator[Callable[[int, str], None]]:
    """Yield `advance(steps, note)`. A terminal shows steps done, rate, note and remaining time.

    Args:
        name: Name of the operation.
        total: Number of steps.
        unit: Unit of a step, in the plural. Empty: the rate is not shown.
        quiet: Print nothing if there is no terminal and it took less than `QUIET_SECONDS`.
    """
    started = perf_counter()
    done, last_note = 0, ""

    def rate_and(note: str) -> str:
        rate = format_rate(done, perf_counter() - started, unit) if unit else ""
        return ", ".join(text for text in (rate, note) if text)

    if console.is_terminal:
        with Progress(*_columns(console.width), console=console, expand=True) as progress:
            task = progress.add_task(name, total=total, note="")

            def advance(steps: int, note: str) -> None:
                nonlocal done
                done += steps
                progress.update(task, advance=steps, note=rate_and(note))

            yield advance
        return

    def count(steps: int, note: str) -> None:
        nonlocal done, last_note
        done, last_note = done + steps, note

    yield count
    seconds = perf_counter() - started
    if not quiet or seconds >= QUIET_SECONDS:
        line = f"{name}: {done:,} of {total:,} in {seconds:.1f} s"
        details = rate_and(last_note)
        console.print(
            f"{line}, {details}" if details else line,
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _columns(width: int) -> tuple[ProgressColumn, ...]:
    """Return the columns of a bar for a terminal of `width` columns.

    The note gets the room that is left, and is cut. The others are never cut.
    """
    return (
        SpinnerColumn(),
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(max(6, min(30, width // 3 - 18))),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TextColumn("[dim]left", table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn(
            "{task.fields[note]}",
            style="dim",
            markup=False,
            table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
        ),
    )


@contextmanager
def progress_callback(
    name: str, unit: str, unit_size: float = 1
) -> Iterator[Callable[[int, int], None]]:
    """Yield `on_progress(done, total)`. The bar appears with the first call.

    Args:
        name: Name of the operation.
        unit: Unit of the bar, in the plural.
        unit_size: Size of a unit in what is counted, e.g. 1e6 for bytes shown as `"MB"`.
    """
    advance: Callable[[int, str], None] | None = None
    displayed = 0
    with ExitStack() as stack:

        def on_progress(done: int, total: int) -> None:
            nonlocal advance, displayed
            if advance is None:
                bar = progress_bar(name, round(total / unit_size), unit, quiet=True)
                advance = stack.enter_context(bar)
            advance(round(done / unit_size) - displayed, "")
            displayed = round(done / unit_size)

        yield on_progress


@contextmanager
def working(message: str) -> Iterator[None]:
    """Show a spinner on a terminal, for an operation of unknown length.

    Elsewhere the message is printed if the operation takes longer than `QUIET_SECONDS`.
    """
    if console.is_terminal:
        with console.status(message):
            yield
        return
    timer = Timer(QUIET_SECONDS, console.print, [message], {"highlight": False, "soft_wrap": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def transfer_progress(template: str) -> Iterator[Callable[[int, int, int], None]]:
    """Yield `advance(done, total, size)` for a transfer of `size` bytes so far.

    A terminal shows one line while the transfer lasts. The line is printed at the end.

    Args:
        template: Text with two placeholders, for `done` and `total`.
    """
    started = perf_counter()
    latest = (0, 0, 0)

    def line() -> str:
        megabytes = latest[2] / 1e6
        rate = megabytes / max(perf_counter() - started, 1e-3)
        return f"{template.format(*latest)}, {megabytes:,.1f} MB, {rate:,.1f} MB/s"

    with console.status("Looking up file sizes") as status:

        def advance(done: int, total: int, size: int) -> None:
            nonlocal latest
            latest = (done, total, size)
            status.update(line())

        yield advance
    if latest[0]:
        console.print(line(), highlight=False, soft_wrap=True)
