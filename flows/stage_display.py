"""The progress of a build's stages on standard error."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Protocol

from flows.progress import format_rate, progress_bar
from pipeline.parts import Part
from pipeline.run import Each

OnProgress = Callable[[int, str], None]


class ReportingEach(Protocol):
    """An `Each` that also reports every part as it is finished."""

    def __call__(
        self,
        stage: str,
        function: Callable[..., Part],
        calls: Sequence[tuple[Any, ...]],
        on_part: Callable[[Part], None],
    ) -> list[Part]: ...


def displayed(engine: ReportingEach) -> Each:
    """Return an `Each` that runs every stage on `engine` and shows its progress."""

    def each(
        stage: str, function: Callable[..., Part], calls: Sequence[tuple[Any, ...]]
    ) -> list[Part]:
        if not calls:
            return []
        with stage_display(stage, len(calls)) as show:
            return engine(stage, function, calls, lambda part: show([part]))

    return each


@contextmanager
def stage_display(
    stage: str, total: int, on_progress: OnProgress = lambda _done, _note: None
) -> Iterator[Callable[[Sequence[Part]], None]]:
    """Show the progress of a stage of `total` parts. Yield a function that takes finished parts.

    Args:
        stage: Name of the stage.
        total: Number of its parts.
        on_progress: Called with the number of finished parts and a note.
    """
    done, documents, note, started = 0, 0, "", perf_counter()
    with progress_bar(stage, total, unit="") as advance:

        def show(parts: Sequence[Part]) -> None:
            nonlocal done, documents, note
            done += len(parts)
            documents += sum(part.account.read.rows for part in parts)
            seconds = perf_counter() - started
            if documents:
                note = f"{documents:,} documents, {format_rate(documents, seconds, 'documents')}"
            else:
                note = format_rate(done, seconds, "parts")
            advance(len(parts), note)
            on_progress(done, note)

        yield show
