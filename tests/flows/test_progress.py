from flows import progress


def test_a_rate_is_said_in_the_unit_that_suits_it():
    assert progress.format_rate(1_000_000, 10, "documents") == "100,000 documents/s"
    assert progress.format_rate(5, 2, "parts") == "2.5 parts/s"
    assert progress.format_rate(3, 60, "parts") == "3.0 parts/min"
    assert progress.format_rate(0, 60, "parts") == ""


def test_without_a_terminal_a_stage_is_one_line(capsys):
    with progress.progress_bar("embed", 3) as advance:
        advance(1, "10 documents")
        advance(2, "30 [b]documents")
    said = capsys.readouterr()
    assert said.out == ""
    [line] = said.err.splitlines()
    assert line.startswith("embed: 3 of 3 in ")
    assert line.endswith(" parts/s, 30 [b]documents")


def test_what_is_over_at_once_says_nothing_and_what_lasts_says_it_in_its_unit(capsys, monkeypatch):
    with progress.progress_callback("verify", "MB", 1e6) as said:
        said(1_000_000, 3_000_000)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    with progress.progress_callback("verify", "MB", 1e6) as said:
        said(1_000_000, 3_000_000)
        said(3_000_000, 3_000_000)
    assert capsys.readouterr().err.startswith("verify: 3 of 3 in ")


def test_on_a_terminal_the_bar_has_rate_and_remaining_time(monkeypatch):
    from io import StringIO

    from rich.console import Console

    screen = Console(file=StringIO(), force_terminal=True, width=140)
    monkeypatch.setattr(progress, "console", screen)
    with progress.progress_bar("embed", 4) as advance:
        advance(2, "20 documents")
    shown = screen.file.getvalue()
    assert "2/4" in shown
    assert "left" in shown
    assert "20 documents" in shown
