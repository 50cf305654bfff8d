"""The catalog page in a real browser: what its addresses open, what the keys do, and that hostile text runs nothing."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from flows.catalog_page import write_catalog_page
from tests.test_catalog_page import HOSTILE, write_domains_catalog

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

# The page's policy refuses scripts that it does not name, so a copy without the policy is driven. Virtual time passes between the steps.
DRIVE = """<script>setTimeout(async () => {
  const found = {}, byId = (id) => document.getElementById(id), wait = () => new Promise((done) => setTimeout(done, 50));
  const key = (node, name) => node.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
  const choose = (id, text) => {
    byId(id).value = [...byId(id).options].find((option) => option.text === text).value;
    byId(id).dispatchEvent(new Event("change"));
  };
  const canvas = document.querySelector("#treemap canvas");
  await wait();
  found.at_first = document.querySelector("#panel h3").textContent;
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data, colours = new Set();
  for (let i = 0; i < pixels.length; i += 4 * 997) colours.add(pixels.slice(i, i + 3).join());
  found.colours = colours.size;
  key(canvas, "ArrowRight");
  found.first = byId("tip").textContent;
  key(canvas, "ArrowRight");
  key(canvas, "Enter");
  await wait();
  found.opened = [location.hash, document.querySelector("#panel h3").textContent];
  choose("level", "2 domains");
  choose("colour", "law");
  found.legend = byId("legend").textContent;
  const map = document.querySelector("#map canvas");
  key(map, "ArrowRight");
  found.on_map = byId("tip").textContent;
  byId("search").focus();
  byId("search").value = "socket";
  byId("search").dispatchEvent(new Event("input"));
  key(byId("search"), "ArrowDown");
  found.focused = document.activeElement.getAttribute("href");
  key(document.activeElement, "ArrowUp");
  found.back = document.activeElement.id;
  found.address = location.hash;
  found.fetched = performance.getEntriesByType("resource").length;
  document.body.dataset.found = JSON.stringify(found);
}, 300)</script></body>"""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    return tmp_path / "profile"


def load(page: Path, profile: Path, address: str = "", width: int = 1400) -> tuple[str, list[str]]:
    """The document after its scripts ran, and what it wrote to the console."""
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --enable-logging=stderr --dump-dom"
    where = [f"--window-size={width},2000", f"--user-data-dir={profile}", page.as_uri() + address]
    done = subprocess.run(
        [str(CHROMIUM), *flags.split(), "--virtual-time-budget=2000", *where], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def text_of(dom: str, pattern: str) -> str:
    """The text of the element whose content the pattern's group matches."""
    found = re.search(pattern, dom, re.S)
    assert found is not None, pattern
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found[1]))).strip()


def panel(dom: str) -> str:
    return text_of(dom, r'<aside id="panel"[^>]*>(.*?)</aside>')


def test_an_address_opens_a_domain_and_a_search(tmp_path: Path, profile: Path) -> None:
    page = write_catalog_page(write_domains_catalog(tmp_path / "catalog"), tmp_path / "page.html")
    dom, console = load(page, profile, "#domain=4/1&search=SITE1.org%20plot", width=700)
    assert console == []
    shown = panel(dom)
    assert shown.startswith("all domains › 2/0 tensor, layer Domain 1 of level 4 socket documents 20 tokens 2,000 (20%)")
    assert "law 100% 25% 5×" in shown
    assert "site1.org 75% no site named 25%" in shown
    assert "Nearest to the centroid an example nearest 0 site0.org · distance 0.500 · doc 1/0" in shown
    assert text_of(dom, r'<span id="found"[^>]*>(.*?)</span>') == "0 domains"  # both words, but no domain has both
    dom, console = load(page, profile, "#domain=%3Cimg%3E/9&search=site1")
    assert (console, text_of(dom, r'<span id="found"[^>]*>(.*?)</span>')) == ([], "2 domains")
    assert re.findall(r'<li><a href="([^"]*)">', re.search(r'<ol id="results"[^>]*>(.*?)</ol>', dom, re.S)[1]) == [
        "#domain=2/1",
        "#domain=4/1",
    ]
    assert text_of(dom, r'<span class="evidence">(.*?)</span>') == "site1 .org"  # the match is marked
    assert panel(dom) == "There is no domain <img>/9 in this page."


def test_a_domain_shows_its_flags_and_children(tmp_path: Path, profile: Path) -> None:
    page = write_catalog_page(write_domains_catalog(tmp_path / "catalog"), tmp_path / "page.html")
    dom, console = load(page, profile, "#domain=2/0")
    assert console == []
    assert "Flag tiny: with fewer than 5 documents" in panel(dom)
    assert "2 domains of level 4 in it 4/1 socket 20% 4/0 tensor, layer 10%" in panel(dom)
    assert dom.count("<canvas") == 3


def test_keys_and_choices(tmp_path: Path, profile: Path) -> None:
    page = write_catalog_page(write_domains_catalog(tmp_path / "catalog"), tmp_path / "page.html")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    page.write_text(text.replace("</body>", DRIVE))
    dom, console = load(page, profile)
    assert console == []
    found = json.loads(html.unescape(re.search(r'data-found="([^"]*)"', dom)[1]))
    assert found["at_first"] == "All domains"
    assert found["colours"] > 4
    assert found["first"].startswith("4/3documents40tokens4k (40%)main site")  # the largest box of the largest domain
    assert found["opened"] == ["#domain=4/2", "Domain 2 of level 4"]
    assert found["legend"] == "0%6.3%25%56.3%100%"
    assert found["on_map"].startswith("2/1  socketdocuments70tokens7k (70%)law100%")
    assert (found["focused"], found["back"], found["fetched"]) == ("#domain=2/1", "search", 0)
    assert found["address"] == "#domain=4/2&search=socket"


def test_hostile_text_runs_nothing(tmp_path: Path, profile: Path) -> None:
    """Not even without the page's policy, which would stop it."""
    catalog = write_domains_catalog(tmp_path / "catalog", text=HOSTILE, target=HOSTILE[:40].replace("/", "|"))
    page = write_catalog_page(catalog, tmp_path / "page.html")
    page.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text()))
    dom, console = load(page, profile, "#domain=4/1&search=script")
    assert (console, dom.count("<img"), "<title>catalog: domains</title>" in dom) == ([], 0, True)
    assert "<script>document.title='ran'</script>" in panel(dom)
    assert text_of(dom, r'<span id="found"[^>]*>(.*?)</span>') == "6 domains"


def test_thousands_of_domains(tmp_path: Path, profile: Path) -> None:
    tokens = tuple(1 + (i * 7919) % 5000 for i in range(4096))
    page = write_catalog_page(write_domains_catalog(tmp_path / "catalog", tokens, top=64), tmp_path / "page.html")
    assert page.stat().st_size < 8_000_000
    dom, console = load(page, profile, "#domain=4096/4095&search=4095")
    assert console == []
    assert "Domain 4095 of level 4,096" in panel(dom)
    assert text_of(dom, r'<span id="found"[^>]*>(.*?)</span>') == "1 domain"
