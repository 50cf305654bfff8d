"""The experiment page in a real browser: charts, legend, tooltips, hostile names and layout."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.pages.experiment import write_experiment_page
from tests.helpers.browser import contrast, elements, needs_browser, opened, settle, text, unnamed
from tests.helpers.made_up_results import VARIANTS, made_up_result, made_up_results
from tests.system.test_catalog_page_browser import HARMLESS, HOSTILE

pytestmark = needs_browser
COLOURS = 16  # of marks


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frontier")
    return write_experiment_page(
        made_up_results(), "half", folder / "experiment.html", {"dga": -0.1}
    )


def shown(tab: Any) -> str:
    """Return the text of the page after checking that it has no invalid numbers."""
    found = tab.evaluate(
        "[...document.querySelectorAll('main, main svg text')]"
        ".map((node) => node.textContent).join(' ')"
    )
    assert not re.search("NaN|undefined|Infinity|\\bnull\\b", found)
    return found


def overlapping_names(tab: Any) -> list[str]:
    """Return the names in charts that cover another name."""
    return tab.evaluate(
        """() => [...document.querySelectorAll("#charts svg")].flatMap((svg) => {
            const names = [...svg.querySelectorAll(".name")];
            const boxes = names.map((name) => name.getBoundingClientRect());
            return names.filter((_, i) => boxes.some((other, k) =>
                i !== k && boxes[i].left < other.right - 1 && other.left < boxes[i].right - 1
                && boxes[i].top < other.bottom - 3 && other.top < boxes[i].bottom - 3,
            )).map((name) => name.textContent);
        })"""
    )


def test_every_setting_has_a_chart_with_all_variants(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        assert tab.locator("#charts h3").all_text_contents() == [
            *("law, 4 epochs", "law, 16 epochs", "code, 4 epochs", "code, 16 epochs")
        ]
        for chart in tab.locator("#charts > div").all():
            assert chart.locator("path:is(.learned, .control, .fixed)").count() == len(VARIANTS)
            assert chart.locator(".errors").count() == len(VARIANTS)
            assert chart.locator(".frontier").count() == 1
            assert sorted(chart.locator(".name").all_text_contents()) == sorted(VARIANTS)
        colours = tab.evaluate(
            "[...document.querySelectorAll('#charts path.learned, #overall path.learned')]"
            ".map((node) => getComputedStyle(node).fill)"
        )
        assert len(colours) == 5
        assert len(set(colours)) == 1
        assert overlapping_names(tab) == []
        assert unnamed(tab) == []
        assert tab.locator("th", has_text="predicted").count() == 1
        shown(tab)


def test_variants_are_explored_without_a_mouse(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        chart = tab.locator("#charts svg").first
        chart.focus()
        tab.keyboard.press("Home")
        assert chart.get_attribute("aria-valuetext").startswith(
            "natural (fixed); target: 2.0010 ± 0.0006; − half: +0.5000 ± 0.0000"
        )
        assert text(tab, "#tip").startswith("natural (fixed)")
        assert tab.locator(".ring[visibility='visible']").count() == 4  # in all charts
        tab.keyboard.press("End")
        assert chart.get_attribute("aria-valuetext").startswith("importance (fixed)")
        tab.keyboard.press("Escape")
        assert not tab.locator("#tip").is_visible()
        assert tab.locator(".ring[visibility='visible']").count() == 0
        tab.get_by_role("button", name="dga").focus()
        assert tab.locator(".ring[visibility='visible']").count() == 4
        tab.keyboard.press("Enter")
        first = tab.locator("#charts > div").first
        assert first.locator(".name").all_text_contents() == ["dga"]
        assert first.locator(".faded > path:not(.errors)").count() == len(VARIANTS) - 1
        tab.keyboard.press("Enter")
        assert first.locator(".faded").count() == 0
        tab.locator("#charts a").nth(1).press("Enter")
        assert tab.evaluate("location.hash") == "#setting-1"


def test_a_tap_shows_the_numbers_of_the_nearest_variant(chromium: Any, page: Path) -> None:
    with opened(chromium, page, has_touch=True, width=390) as tab:
        mark = tab.locator("#charts > div").first.locator("path.learned")
        mark.scroll_into_view_if_needed()
        mark.tap(force=True)
        assert text(tab, "#tip").startswith("dga (learned)target1.4012 ± 0.0006")


def test_the_range_of_the_charts_can_be_narrowed(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        first = tab.locator("#charts > div").first
        near = tab.get_by_role("button", name="Learned, controls and baseline")
        near.click()
        assert near.get_attribute("aria-pressed") == "true"
        assert sorted(first.locator(".name").all_text_contents()) == [
            *("averaged", "dga", "half", "shuffled")
        ]
        assert "3 outside" in first.text_content()
        tab.get_by_role("button", name="All variants").click()
        assert "outside" not in first.text_content()


def test_a_single_run_has_a_chart(chromium: Any, tmp_path: Path) -> None:
    page = write_experiment_page([made_up_result("dga")], "half", tmp_path / "e.html")
    with opened(chromium, page) as tab:
        assert tab.locator("#charts .name").all_text_contents() == ["dga"]
        assert not tab.locator("#zoom").is_visible()
        shown(tab)


def test_many_runs_open_quickly(chromium: Any, tmp_path: Path) -> None:
    results = [
        replace(run, variant=f"{run.variant}-{copy}", test=run.test + copy / 50)
        for run in made_up_results(targets=[f"t{i}" for i in range(12)], seeds=[0])
        for copy in (0, 1)
    ]
    page = write_experiment_page(results, "half-0", tmp_path / "e.html")
    assert len(results) == 336
    with opened(chromium, page) as tab:
        assert tab.locator("#charts .frontier").count() == 24
        timing = "performance.getEntriesByType('navigation')[0].loadEventEnd"
        assert tab.evaluate(timing) < 5_000  # about 500 ms on a quiet machine
        assert overlapping_names(tab) == []


def test_hostile_names_have_no_effect(chromium: Any, tmp_path: Path) -> None:
    """Even without the content security policy, the elements are those of harmless names."""
    seen = []
    for words in (HOSTILE, HARMLESS):
        results = [
            made_up_result(variant, target=words, name=f"{words}{variant}")
            for variant in ("dga", "averaged", "half", "natural")
        ]
        page = write_experiment_page(results, f"{words}half", tmp_path / "e.html")
        with opened(chromium, page, bypass_csp=True) as tab:
            tab.locator("#charts svg").first.focus()
            tab.keyboard.press("ArrowRight")
            tab.wait_for_timeout(50)  # enough time for a missing image to fail
            seen.append((elements(tab), tab.locator("h2").all_text_contents()))
    assert seen[0] == seen[1]


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (700, "dark"), (390, "light")])
def test_layout_and_contrast(chromium: Any, page: Path, width: int, scheme: str) -> None:
    with opened(chromium, page, width=width, color_scheme=scheme) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        marks = [contrast(tab, f"--v{i}", "--paper") for i in range(COLOURS)]
        assert min(marks) >= 3  # what marks need (WCAG)
        assert overlapping_names(tab) == []
        tab.emulate_media(media="print", color_scheme=scheme)
        settle(tab)
        assert (
            tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
        assert not tab.locator("#zoom").is_visible()
