"""Progress on a terminal as bars, elsewhere as one line a stage."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True)


@contextmanager
def bar(name: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """Yield `advance(steps, note)`."""
    started = perf_counter()
    if not console.is_terminal:
        done: list[tuple[int, str]] = [(0, "")]
        yield lambda steps, note: done.append((done[-1][0] + steps, note))
        steps, note = done[-1]
        console.print(f"{name}: {steps} of {total} in {perf_counter() - started:.1f} s {note}", highlight=False, soft_wrap=True)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<22}"),
        BarColumn(40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        shown = progress.add_task(name, total=total, note="")
        yield lambda steps, note: progress.update(shown, advance=steps, note=note)


@contextmanager
def transfer(said: str) -> Iterator[Callable[[int, int, int], None]]:
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
