"""Progress bars and lines."""

from flows import progress


def test_a_low_rate_is_per_minute():
    assert progress.format_rate(1_000_000, 10, "documents") == "100,000 documents/s"
    assert progress.format_rate(5, 2, "parts") == "2.5 parts/s"
    assert progress.format_rate(3, 60, "parts") == "3.0 parts/min"
    assert progress.format_rate(0, 60, "parts") == ""


def test_a_stage_prints_one_line_without_a_terminal(capsys):
    with progress.progress_bar("embed", 3) as advance:
        advance(1, "10 documents")
        advance(2, "30 [b]documents")
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    assert line.startswith("embed: 3 of 3 in ")
    assert line.endswith(" parts/s, 30 [b]documents")


def test_a_short_operation_prints_nothing_and_a_long_one_a_line(capsys, monkeypatch):
    with progress.progress_callback("verify", "MB", 1e6) as on_progress:
        on_progress(1_000_000, 3_000_000)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    with progress.progress_callback("verify", "MB", 1e6) as on_progress:
        on_progress(1_000_000, 3_000_000)
        on_progress(3_000_000, 3_000_000)
    assert capsys.readouterr().err.startswith("verify: 3 of 3 in ")


def test_a_bar_shows_the_remaining_time_on_a_terminal(monkeypatch):
    from io import StringIO

    from rich.console import Console

    screen = Console(file=StringIO(), force_terminal=True, width=140)
    monkeypatch.setattr(progress, "console", screen)
    with progress.progress_bar("embed", 4) as advance:
        advance(2, "20 documents")
    output = screen.file.getvalue()
    assert "2/4" in output
    assert "left" in output
    assert "20 documents" in output
