"""Controls of the pages in a real browser: zoom, explained words, contents, axes and CSV."""

from pathlib import Path
from typing import Any

import pytest

from flows.pages.catalog import write_catalog_page
from flows.pages.run import write_report
from tests.helpers.browser import address, needs_browser, opened, text
from tests.helpers.domains_catalog import write_domains_catalog
from tests.helpers.tiny_run import write_run
from tests.system.test_catalog_page_browser import painted

pytestmark = needs_browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    return write_catalog_page(write_domains_catalog(folder / "catalog"), folder / "page.html")


def test_a_click_on_a_top_level_domain_zooms_into_it(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        canvas, button = tab.locator("#treemap canvas"), tab.locator("#zoom")
        assert not button.is_visible()
        whole = painted(tab)

        def last() -> str | None:
            canvas.focus()
            tab.keyboard.press("End")
            return canvas.get_attribute("aria-valuemax")

        assert last() == "3"
        canvas.click(position={"x": 60, "y": 6})  # the title of 2/1, the larger one
        assert address(tab) == "#domain=2/1"
        assert (button.text_content(), last()) == ("Show all domains (Escape)", "1")
        tab.keyboard.press("Escape")
        assert (button.text_content(), last()) == ("Zoom into socket", "3")
        button.click()
        assert last() == "1"
        assert painted(tab) != whole
        button.click()
        assert last() == "3"
        tab.select_option("#level", label="2 domains")
        assert not button.is_visible()


@pytest.mark.parametrize(("width", "is_open"), [(1400, True), (800, False)])
def test_the_contents_lead_to_the_sections(
    chromium: Any, page: Path, width: int, is_open: bool
) -> None:
    with opened(chromium, page, "domain=4/1", width=width) as tab:
        links = tab.locator("#contents a")
        assert links.first.is_visible() == is_open
        if not is_open:
            tab.locator("#contents summary").click()
        assert links.all_text_contents() == tab.locator("main h2").all_text_contents()
        links.last.click()
        assert address(tab) == "#domain=4/1"
        assert tab.evaluate("document.activeElement.textContent") == "Time per stage"
        assert tab.evaluate("scrollY") > 0


def test_words_are_explained_to_the_pointer_and_the_keyboard(chromium: Any, page: Path) -> None:
    with opened(chromium, page, "domain=4/1") as tab:
        word = tab.locator("#panel abbr", has_text="radius")
        word.hover()
        assert text(tab, "#tip").startswith("Root mean square distance")
        tab.mouse.move(5, 5)
        assert not tab.locator("#tip").is_visible()
        word.focus()
        assert tab.locator("#tip").is_visible()
        tab.keyboard.press("Escape")
        assert not tab.locator("#tip").is_visible()


def test_axes_and_units_change_the_curves_and_their_csv(chromium: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "=1+1", losses=(1.0, 0.5))
    with opened(chromium, write_report([folder], tmp_path / "r.html")) as tab:

        def saved() -> list[str]:
            with tab.expect_download() as download:
                tab.locator("#losses .download").first.click()
            assert download.value.suggested_filename == "Target-held-out-text.csv"
            return Path(download.value.path()).read_bytes().decode().split("\r\n")

        assert saved() == [
            '"series","training tokens","nats per token","error"',
            '"\'=1+1",0,1,',
            '"\'=1+1",4000,0.5,',
        ]
        tab.get_by_role("button", name="seconds").click()
        tab.get_by_role("button", name="perplexity").click()
        assert saved()[0] == '"series","seconds","perplexity","error"'
        assert saved()[2].split(",")[1:3] == ["5", "1.6487212707001282"]
        tab.get_by_role("button", name="steps").click()
        assert saved()[2].split(",")[1] == "10"
        assert "steps" in tab.locator("#losses svg text").all_text_contents()
