"""Figures of a catalog whose text is hostile: text from a catalog is never markup."""

import json
import re
import shutil
import subprocess

import pytest

import data_catalog
from data_catalog.untrusted import escape
from tests.helpers.domains_catalog import write_domains_catalog
from tests.helpers.tiny_run import write_run

pytest.importorskip("plotly", reason="plotly is not installed")
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
HOSTILE = (
    '<a href="javascript:alert(1)">x</a><img src=x onerror="document.title=1"> '
    "$\\href{x}{y}$ %{x} &lt;b&gt; \u202egnp.exe\n"
)
SHOWN = escape(HOSTILE, 30)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    write_domains_catalog(folder / "<b>catalog", text=HOSTILE, target=HOSTILE)
    write_run(folder / "<img src=x>", basis=(HOSTILE, "natural"), target=HOSTILE, mixer=HOSTILE)
    return data_catalog.open(folder / "<b>catalog", runs=[folder / "<img*"])


def test_no_figure_has_markup_from_the_catalog(hostile):
    plot = hostile.plot
    figures = [
        plot.treemap(4, HOSTILE),
        plot.treemap(4, "source"),
        plot.map(4, HOSTILE),
        plot.domain_sizes(),
        plot.distributions(4),
    ]
    figures += [plot.overlaps(), plot.drops(), plot.losses(), plot.weights(), plot.scores()]
    text = "\n".join(found for figure in figures for found in strings(json.loads(figure.to_json())))
    assert text.count(SHOWN) >= 10
    # Not one tag but those of the figures themselves, and nothing for MathJax.
    assert set(re.findall(r"</?(\w+)", text)) <= {"b", "br", "extra", "span"}
    assert not {"$", "\u202e"} & set(text)


def strings(tree):
    """All text in a figure."""
    if isinstance(tree, str):
        return [tree]
    inside = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []
    return [found for part in inside for found in strings(part)]


@pytest.mark.system
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_hostile_text_is_shown_letter_by_letter(hostile, tmp_path):
    page = tmp_path / "map.html"
    script = """
        Plotly.Fx.hover('map', [{ curveNumber: 0, pointNumber: 0 }]);
        document.title = document.querySelector('.hoverlayer').textContent;"""
    hostile.plot.map(4).write_html(page, include_plotlyjs=True, div_id="map", post_script=script)
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--dump-dom",
        "--virtual-time-budget=3000",
    ]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    shown = re.sub(r"<script.*?</script>", "", done.stdout, flags=re.S)
    assert not re.search(r"<img|<a [^>]*javascript", shown)
    assert '&lt;a href="javascript:alert(1)"…' in re.search(r"<title>(.*?)</title>", shown, re.S)[1]
