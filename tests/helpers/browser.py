"""A real browser for tests of the pages. It also checks that a page requests no other resource."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = (
    os.environ.get("CHROMIUM")
    or shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
)
MISSING = (
    "no Chromium on this machine"
    if CHROMIUM is None
    else "playwright is not installed"
    if find_spec("playwright") is None
    else ""
)
needs_browser = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Yield a browser per module. Its event loop must end before other tests start one."""
    if MISSING:
        pytest.skip(MISSING)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as library:
        browser = library.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@contextmanager
def opened(
    chromium: Any,
    page: Path | str,
    place: str = "",
    *,
    width: int = 1400,
    messages: list[str] | None = None,
    **context: Any,
) -> Iterator[Any]:
    """Yield the loaded page.

    At the end, check that it has requested nothing except itself and has written nothing to the
    console.

    Args:
        place: The part of the address after `#`.
        messages: List for messages of the console. They are an error if it is None.
        context: Further settings of the browser, such as `color_scheme="dark"`, or
            `bypass_csp=True` to disable the content security policy.
    """
    where = page.as_uri() if isinstance(page, Path) else page
    console, asked = [] if messages is None else messages, []
    with chromium.new_context(viewport={"width": width, "height": 1000}, **context) as session:
        session.set_default_timeout(20_000)
        tab = session.new_page()
        tab.on("console", lambda message: console.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: console.append(f"error: {error}"))
        tab.on(
            "dialog", lambda dialog: (console.append(f"dialog: {dialog.message}"), dialog.dismiss())
        )
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(where + (f"#{place}" if place else ""))
        settle(tab)
        yield tab
        settle(tab)
        if messages is None:
            assert console == []
        own = {where, where.rstrip("/") + "/data"}  # a live page asks its own server
        assert [
            url for url in asked if url.split("#")[0] not in own and not url.startswith("data:")
        ] == []


def settle(tab: Any) -> None:
    """Wait until two frames are painted, so that work deferred to the next frame is finished."""
    tab.evaluate(
        """() => new Promise((done) => {
            requestAnimationFrame(() => requestAnimationFrame(() => done()));
        })"""
    )


def address(tab: Any) -> str:
    """Return the fragment of the address after the page has settled."""
    settle(tab)
    return tab.evaluate("location.hash")


def text(tab: Any, place: str) -> str:
    """Return the visible text of an element, with white space collapsed."""
    return " ".join(tab.locator(place).first.inner_text().split())


def elements(tab: Any) -> dict[str, int]:
    """Return the number of elements by tag, and of attributes that would run a script."""
    return tab.evaluate(
        """() => {
            const found = {}, count = (name) => { found[name] = (found[name] ?? 0) + 1; };
            const runs = ({ name, value }) =>
                name.startsWith("on") || /^\\s*javascript:/i.test(value);
            for (const node of document.querySelectorAll("*")) {
                count(node.localName);
                for (const attribute of node.attributes)
                    if (runs(attribute)) count(`${attribute.name}=${attribute.value}`);
            }
            return found;
        }"""
    )


def unnamed(tab: Any) -> list[str]:
    """Return the focusable elements without a name for screen readers."""
    return tab.evaluate(
        """() => [...document.querySelectorAll("a, button, input, select, summary, [tabindex]")]
            .filter((node) => !(
                node.getAttribute("aria-label")
                || node.textContent.trim()
                || node.labels?.[0]?.textContent.trim()
            ))
            .map((node) => node.outerHTML.slice(0, 200))"""
    )


def contrast(tab: Any, ink: str, paper: str) -> float:
    """Return the contrast ratio (WCAG) of two custom properties of the style."""
    return tab.evaluate(
        """([ink, paper]) => {
            const style = getComputedStyle(document.documentElement);
            const part = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            const light = (name) => {
                const hex = style.getPropertyValue(name).trim();
                const [r, g, b] = [1, 3, 5].map(
                    (at) => part(parseInt(hex.slice(at, at + 2), 16) / 255)
                );
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x);
            return (a + 0.05) / (b + 0.05);
        }""",
        [ink, paper],
    )
