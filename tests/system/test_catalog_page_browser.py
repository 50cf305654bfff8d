"""The catalog page in a real browser: addresses, user input, and hostile text."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.format import tables
from data_catalog.format.layout import Layout
from flows.pages.catalog import write_catalog_page
from tests.helpers.browser import (
    address,
    contrast,
    elements,
    needs_browser,
    opened,
    settle,
    text,
    unnamed,
)
from tests.helpers.domains_catalog import write_domains_catalog
from tests.helpers.manifests import accept_files, change_manifest

pytestmark = needs_browser

HOSTILE = (
    "</script><script>document.title='ran'</script>"
    "<img src=x onerror=\"document.title='ran'\"><svg onload=alert(1)>"
    "<a href='javascript:alert(2)'>\"'><!-- --!> ]]> {{data}} ${alert(3)} "
    "\u202egnp.exe\u202c \u200b\u200d\ufeff \x00\x1b\x85 \u2028\ud7ff"
)
HARMLESS = "words of a document that means no harm and is about as long as the other one is"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    return write_catalog_page(write_domains_catalog(folder / "catalog"), folder / "page.html")


def test_a_fragment_opens_a_domain_and_a_search(chromium: Any, page: Path) -> None:
    with opened(chromium, page, "domain=4/1&search=SITE1.org%20plot", width=700) as tab:
        shown = text(tab, "#panel")
        assert shown.startswith(
            "all domains › 2/0 tensor, layer socket Domain 1 of level 4 socket "
            "Nearest to the centroid an example nearest 0 site0.org · distance 0.500 · doc 1/0"
        )
        assert "documents 20 tokens 2,000 (20%)" in shown
        assert "distance 0.10 to 0.50" in shown
        box = tab.locator(".quantiles rect")
        assert [float(box.get_attribute(key)) for key in ("x", "width")] == [40, 40]
        assert "law 100% 25% 5×" in shown
        assert "site1.org 75% unknown 25%" in shown
        assert (
            "Nearest to the centroid an example nearest 0 site0.org · distance 0.500 · doc 1/0"
            in shown
        )
        assert text(tab, "#found") == "0 domains"  # no domain contains both words
        tab.goto(page.as_uri() + "#domain=%3Cimg%3E/9&search=site1")
        assert text(tab, "#found") == "2 domains"
        assert [a.get_attribute("href") for a in tab.locator("#results a").all()] == [
            "#domain=2/1",
            "#domain=4/1",
        ]
        assert (text(tab, ".evidence"), text(tab, ".evidence mark")) == ("site1.org", "site1")
        assert text(tab, "#panel") == "There is no domain <img>/9 on this page."


def test_a_domain_shows_its_flags_and_children(chromium: Any, page: Path) -> None:
    with opened(chromium, page, "domain=2/0") as tab:
        assert "Flag tiny: with fewer than 5 documents" in text(tab, "#panel")
        assert "2 child domains at level 4 4/1 socket 20% 4/0 tensor, layer 10%" in text(
            tab, "#panel"
        )
        tab.locator("#panel a", has_text="4/0").click()
        assert address(tab) == "#domain=4/0"
        assert "Domain 0 of level 4" in text(tab, "#panel")
        assert text(tab, "#opened") == "Opened 4/0 tensor, layer"


def test_the_mouse_shows_tooltips_and_opens_domains(chromium: Any, page: Path) -> None:
    """Domain 2/1 has 70 % of the tokens and is on the left. It contains 4/3 with 40 %."""
    with opened(chromium, page) as tab:
        assert text(tab, "#panel h3") == "All domains"
        box = tab.locator("#treemap canvas").bounding_box()
        tab.mouse.move(box["x"] + 60, box["y"] + 60)
        assert text(tab, "#tip") == "4/3 documents 40 tokens 4k (40%) main source site3.org"
        tab.mouse.down()
        tab.mouse.up()
        assert address(tab) == "#domain=4/3"
        assert text(tab, "#panel h3") == "Domain 3 of level 4"
        tab.mouse.move(5, 5)
        assert not tab.locator("#tip").is_visible()
        heat = tab.locator("#heatmap canvas")
        heat.click(
            position={"x": heat.bounding_box()["width"] * 0.45, "y": 10}
        )  # the second of four columns
        assert address(tab) == "#domain=4/1"
        assert text(tab, "#panel h3") == "socket Domain 1 of level 4"
        tab.locator(
            "#panel .chips a"
        ).first.click()  # a term starts a search and keeps the domain open
        assert address(tab) == "#search=socket"
        assert tab.locator("#search").input_value() == "socket"
        assert text(tab, "#found") == "2 domains"
        assert text(tab, "#panel h3") == "socket Domain 1 of level 4"


def test_the_page_can_be_used_with_the_keyboard(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        assert unnamed(tab) == []
        tab.locator("#contents a").last.focus()
        for place in ("#search", "#level", "#colour", "#treemap canvas", "#map canvas"):
            tab.keyboard.press("Tab")
            assert tab.evaluate(
                "(place) => document.activeElement === document.querySelector(place)", place
            ), place
        treemap = tab.locator("#treemap canvas")
        treemap.focus()
        tab.keyboard.press("ArrowRight")
        assert (
            treemap.get_attribute("aria-valuetext")
            == "4/3; documents: 40; tokens: 4k (40%); main source: site3.org"
        )
        tab.keyboard.press("End")
        tab.keyboard.press("ArrowLeft")
        assert (treemap.get_attribute("aria-valuenow"), treemap.get_attribute("aria-valuemax")) == (
            "2",
            "3",
        )
        assert text(tab, "#tip").startswith("4/1 socket")
        tab.keyboard.press("Enter")
        assert address(tab) == "#domain=4/1"
        tab.keyboard.press("Escape")
        assert not tab.locator("#tip").is_visible()
        tab.locator("#search").press_sequentially("socket")
        tab.keyboard.press("ArrowDown")
        assert tab.evaluate("document.activeElement.getAttribute('href')") == "#domain=2/1"
        tab.keyboard.press("ArrowUp")
        assert tab.evaluate("document.activeElement.id") == "search"
        assert address(tab) == "#domain=4/1&search=socket"
        tab.keyboard.press("ArrowDown")
        tab.keyboard.press("Enter")
        assert text(tab, "#panel h3") == "socket Domain 1 of level 2"


IN_ONE_TASK = """() => {
    const place = (selector) => document.querySelector(selector);
    const title = () => place("#panel h3").textContent;
    const seen = [];
    const typed = (words) => {
        place("#search").value = words;
        place("#search").dispatchEvent(new Event("input"));
    };
    const pressed = (node, key) =>
        node.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    pressed(place("#treemap canvas"), "End");
    pressed(place("#treemap canvas"), "Enter");
    seen.push([location.hash, title()]);
    typed("socket");
    seen.push([location.hash, title()]);
    pressed(place("#search"), "ArrowDown");
    document.activeElement.click();
    seen.push([location.hash, title()]);
    typed("plot");
    seen.push([location.hash, title()]);
    return seen;
}"""


def test_fast_input_is_handled_in_order(chromium: Any, page: Path) -> None:
    """All keys arrive before the browser reports the first change of the address."""
    with opened(chromium, page) as tab:
        steps = [
            ["#domain=4/3", "Domain 3 of level 4"],
            ["#domain=4/3&search=socket", "Domain 3 of level 4"],
            ["#domain=2/1", "socketDomain 1 of level 2"],
            ["#domain=2/1&search=plot", "socketDomain 1 of level 2"],
        ]
        assert tab.evaluate(IN_ONE_TASK) == steps
        assert [address(tab), tab.locator("#panel h3").text_content()] == steps[-1]
        tab.go_back()
        assert [address(tab), tab.locator("#panel h3").text_content()] == steps[1]
        tab.go_forward()
        assert [address(tab), tab.locator("#panel h3").text_content()] == steps[-1]


def test_a_modifier_key_opens_a_link_in_another_tab(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab, tab.context.expect_page() as other:
        tab.locator("#panel a", has_text="2/1").click(modifiers=["ControlOrMeta"])
        assert (address(tab), text(tab, "#panel h3")) == ("", "All domains")
    assert other.value.url.endswith("#domain=2/1")


def test_level_colour_and_table_of_weights(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        assert text(tab, "#legend") == "site3.org site2.org site1.org site0.org other or unknown"
        before = painted(tab)
        tab.select_option("#colour", label="law")
        assert painted(tab) != before
        assert text(tab, "#legend") == "0% 6.3% 25% 56.3% 100%"
        assert tab.locator("#colour optgroup").evaluate_all(
            "(all) => all.map((one) => one.label)"
        ) == [
            "Source",
            "Quality",
            "Weight in a target",
        ]
        tab.locator("summary", has_text="Table").click()
        assert text(tab, "#weights tbody tr:nth-child(2)") == "4/1 socket 2,000 100% 20%"
        tab.select_option("#level", label="2 domains")
        assert text(tab, "#weights tbody tr:nth-child(2)") == "2/1 socket 7,000 100% 70%"
        tab.locator("#map canvas").focus()
        tab.keyboard.press("ArrowRight")
        assert text(tab, "#tip") == "2/1 socket documents 70 tokens 7k (70%) law 100%"


def painted(tab: Any) -> str:
    settle(tab)
    return tab.evaluate("document.querySelector('#treemap canvas').toDataURL()")


def test_the_quality_of_a_real_build(chromium: Any, built: tuple, tmp_path: Path) -> None:
    with opened(
        chromium, write_catalog_page(built[0], tmp_path / "page.html"), "domain=2/0"
    ) as tab:
        tab.select_option("#colour", label="share of unique words")
        settle(tab)
        assert re.fullmatch(r"0\.\d+ or less( 0\.\d+){3} 0\.\d+ or more", text(tab, "#legend"))
        assert re.search(
            r"Signal Domain Corpus .*share of unique words 0\.\d+ 0\.\d+", text(tab, "#panel")
        )
        assert unnamed(tab) == []


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (700, "dark"), (360, "light")])
def test_layout_and_contrast(chromium: Any, page: Path, width: int, scheme: str) -> None:
    with opened(chromium, page, "domain=4/1", width=width, color_scheme=scheme) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        for ink in ("--ink", "--soft", "--s0"):
            assert min(contrast(tab, ink, "--paper"), contrast(tab, ink, "--raised")) >= 4.5
        tab.emulate_media(media="print", color_scheme=scheme)
        assert (
            tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
        assert not tab.locator(".bar").is_visible()


def test_hostile_text_has_no_effect(chromium: Any, tmp_path: Path) -> None:
    """Even without the content security policy, the page is the same as with harmless text."""
    seen = []
    for name, words in (("hostile", HOSTILE), ("harmless", HARMLESS)):
        catalog = write_domains_catalog(tmp_path / name / "catalog", text=words)
        page = write_catalog_page(catalog, tmp_path / name / "page.html")
        with opened(chromium, page, "domain=4/1", bypass_csp=True) as tab:
            tab.locator("summary", has_text="Table").click()
            tab.select_option("#colour", index=3)
            tab.locator("#search").fill("script" if words is HOSTILE else "harm")
            tab.locator("#treemap canvas").focus()
            tab.keyboard.press("ArrowRight")
            tab.wait_for_timeout(50)  # enough time for a missing image to fail
            found = elements(tab)
            found.pop("mark")
            seen.append((found, tab.title(), text(tab, "#found")))
            assert words[:40] in tab.locator("#panel").text_content()
    assert seen[0] == seen[1]


def test_long_text_is_cut(chromium: Any, tmp_path: Path) -> None:
    catalog = write_domains_catalog(tmp_path / "catalog")
    folder = Layout(catalog, 1).tables
    huge = "<b>\u202e" + "x" * 5_000_000
    for name, schema, column, value in (
        ("examples.parquet", tables.EXAMPLES, "snippet", huge),
        ("examples.parquet", tables.EXAMPLES, "doc_id", huge),
        ("domains.parquet", tables.DOMAINS, "terms", [huge]),
    ):
        first, *others = pq.read_table(folder / name).to_pylist()
        pq.write_table(
            pa.Table.from_pylist([{**first, column: value}, *others], schema), folder / name
        )
        accept_files(catalog, folder / name)
    page = write_catalog_page(catalog, tmp_path / "page.html")
    assert page.stat().st_size < 200_000
    with opened(chromium, page, "domain=2/0&search=xxx", width=700) as tab:
        assert text(tab, "#found") == "1 domain"
        assert "xxx" in text(tab, "#panel .chips")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 700


def test_thousands_of_domains(chromium: Any, tmp_path: Path) -> None:
    tokens = tuple(1 + (i * 7919) % 5000 for i in range(4096))
    page = write_catalog_page(
        write_domains_catalog(tmp_path / "catalog", tokens, top=64), tmp_path / "page.html"
    )
    assert page.stat().st_size < 8_000_000
    with opened(chromium, page, "domain=4096/4095&search=4095") as tab:
        assert text(tab, "#panel h3") == "Domain 4095 of level 4,096"
        assert text(tab, "#found") == "1 domain"
        assert "the 128 domains with the largest weights, of 4,096" in text(tab, "#heatmap-caption")


def test_one_level_and_no_target(chromium: Any, tmp_path: Path) -> None:
    catalog = write_domains_catalog(tmp_path / "catalog")
    change_manifest(catalog, granularities=[4], targets=[])
    with opened(chromium, write_catalog_page(catalog, tmp_path / "page.html"), "domain=4/1") as tab:
        assert "Domains per level: 4. Version 1, no targets." in text(tab, "header")
        assert text(tab, "#heatmap-caption").startswith("This catalog has no targets.")
        assert text(tab, "#panel").startswith("all domains socket Domain 1 of level 4")
