"""The report as a page: its words, hostile text, and what a real browser makes of it."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from flows.report import write_report
from flows.report.page import embed, escape, short
from tests.tiny_run import write_catalog, write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TERMS = [["tensor", "layer"], ["socket"], ["plot", "axis"], ["date"]]
HOSTILE = "</script><img src=x onerror=alert(1)><!-- {{data}} \u202eABC \u05d0\u05d1 " + "long" * 100


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return write_catalog(tmp_path / "catalog", [1000, 2000, 2000, 5000], TERMS)


def data_of(page: Path) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)[1])


# --- page.py


def test_the_page_says_who_is_best(tmp_path: Path, catalog: Path) -> None:
    folders = [
        write_run(tmp_path / "plain", mixer="natural", basis=["natural"], losses=(6.0, 2.5)),
        write_run(tmp_path / "dga", losses=(6.0, 2.0)),
    ]
    text = re.sub(r"<[^>]+>", "", write_report(folders, tmp_path / "r.html", catalog).read_text())
    assert "dga (mixer dga) has the lowest loss, 2.125 nats per token on the test text of the target goal after 4,000 tokens" in text
    assert "0.500 (19.0%) below the next, plain." in text
    assert "dga ended with 33% goal, 33% natural, 33% uniform (effective number 3.0 of 3)" in text
    assert "its largest domains: 45.0% domain 0 (tensor, layer), 25.0% domain 3 (date)" in text


def test_equal_runs_are_called_equal(tmp_path: Path) -> None:
    text = re.sub(r"<[^>]+>", "", write_report([write_run(tmp_path / "a"), write_run(tmp_path / "b")], tmp_path / "r.html").read_text())
    assert "a (mixer dga) and b have the same lowest loss, 2.125 nats per token" in text


def test_notes_name_what_makes_a_comparison_unfair(tmp_path: Path, catalog: Path) -> None:
    folders = [write_run(tmp_path / "a", usage=None, catalog=catalog), write_run(tmp_path / "b", losses=(3.0, 2.0), target="other")]
    text = re.sub(r"<[^>]+>", "", write_report(folders, tmp_path / "r.html").read_text())
    assert "a has not finished" in text
    assert "different amounts of text (4,000 to 20k tokens)" in text
    assert "different targets" in text
    (catalog / "catalog.json").write_text('{"format": 2, "version": 1, "fingerprint": "dead"}')
    assert "its fingerprint differs" in write_report(folders, tmp_path / "r.html").read_text()


@pytest.mark.parametrize("losses", [(), (3.0,), (6.0, 4.0, 3.0, 2.5, 2.25, 2.0)])
@pytest.mark.parametrize("with_catalog", [False, True])
def test_a_run_under_way_has_a_page(tmp_path: Path, catalog: Path, losses: tuple[float, ...], with_catalog: bool) -> None:
    folder = write_run(tmp_path / "a", usage=None, losses=losses)
    data = data_of(write_report([folder], tmp_path / "r.html", catalog if with_catalog else None))
    assert (len(data["weights"]), data["domains"] is not None) == (1, with_catalog)
    for name in ("weights.parquet", "metrics.jsonl"):  # before the first update, the first record
        (folder / name).unlink()
        assert "has not written any weights yet" in write_report([folder], tmp_path / "r.html").read_text()


def test_text_from_data_cannot_leave_its_place(tmp_path: Path) -> None:
    hostile = write_catalog(tmp_path / "c", [1000, 2000, 2000, 5000], [[HOSTILE]] * 4)
    basis = [HOSTILE, "natural\x00\ud800"]
    run = write_run(tmp_path / "{{data}}<b>", basis=basis, target=HOSTILE, mixer="<i>dga")
    page = write_report([run], tmp_path / "r.html", hostile)
    text = page.read_text()
    assert text.count("</script>") == 3
    assert "<img" not in text
    assert "<i>" not in text
    assert "<b>" not in text
    assert "\x00" not in text
    assert data_of(page)["weights"][0]["names"] == basis
    assert data_of(page)["runs"][0]["label"] == "{{data}}<b>"


def test_escape_and_embed() -> None:
    assert escape('<a b="\x01">&') == "&lt;a b=&quot;\ufffd&quot;&gt;&amp;"
    assert embed({"k": "</script>\u2028"}) == '{"k":"\\u003c/script>\\u2028"}'
    assert [short(v) for v in (None, 999, 1234.5, 20_000, 12_300_000, 0.01234)] == ["–", "999", "1,234", "20k", "12.3M", "0.0123"]


def test_the_policy_allows_exactly_what_is_inlined(tmp_path: Path) -> None:
    text = write_report([write_run(tmp_path / "a")], tmp_path / "r.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    inlined = re.findall(r"<style>(.*?)</style>", text, re.S) + re.findall(r"<script>(.*?)</script>", text, re.S)
    found = [f"sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}" for part in inlined]
    assert policy.startswith("default-src 'none'; ")
    assert re.findall(r"sha256-[^']*", policy) == found
    assert not re.search(r"""(?:src|href)=["']?(?!data:)[a-z]*:?//""", text)


# --- the scripts, in a browser


def load(page: Path, profile: Path) -> tuple[str, list[str]]:
    """The document after its scripts ran, and what it wrote to the console."""
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --enable-logging=stderr --dump-dom"
    command = [
        CHROMIUM,
        *flags.split(),
        "--virtual-time-budget=2000",
        "--window-size=1400,2000",
        f"--user-data-dir={profile}",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_draws_everything_without_a_console_message(tmp_path: Path, catalog: Path) -> None:
    folders = [write_run(tmp_path / "plain", mixer="natural", basis=["natural"]), write_run(tmp_path / "dga")]
    dom, console = load(write_report(folders, tmp_path / "r.html", catalog), tmp_path / "profile")
    assert console == []
    assert dom.count("<svg") == 5  # two losses, weights and effective number of one run, sizes
    body = re.search(r'<table id="domains">.*?<tbody>(.*?)</tbody>', dom, re.S)[1]
    first = re.findall(r"<bdi>(.*?)</bdi>", body)[:11]
    assert first == ["3", "date", "500", "5,000", "50%", "0%", "40%", "0.50", "40%", "0.50", "0"]
    assert "NaN" not in re.sub(r"<script.*?</script>", "", dom, flags=re.S)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_hostile_text_runs_nothing_and_the_pointer_reads_values(tmp_path: Path) -> None:
    hostile = write_catalog(tmp_path / "c", [1000, 0, 2000, 5000], [[HOSTILE]] * 4)
    folder = write_run(tmp_path / HOSTILE[:20].replace("/", "|"), target=HOSTILE, basis=[HOSTILE, "natural"])
    page = write_report([folder], tmp_path / "r.html", hostile)
    dom, console = load(page, tmp_path / "profile")
    assert (console, dom.count("<img")) == ([], 0)
    # The policy refuses a script that was added, so the pointer is moved in a copy without one.
    move = """<script>setTimeout(() => { const chart = document.querySelector("#losses svg"), box = chart.getBoundingClientRect();
      chart.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + 50, clientY: box.top + 50 })); }, 500)</script></body>"""
    page.write_text(page.read_text().replace("</body>", move))
    dom, console = load(page, tmp_path / "profile")
    assert "Content Security Policy" in "".join(console)
    page.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text()))
    dom, console = load(page, tmp_path / "profile")
    tip = re.search(r'<div id="tip"[^>]*>(.*?)<script', dom, re.S)[1]
    assert (console, re.findall(r"<(?:strong|b)>(.*?)</", tip)) == ([], ["0 tokens, nats per token", "6.000"])
