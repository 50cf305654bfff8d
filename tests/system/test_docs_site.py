"""The documentation as a site: built without a warning, and it asks the network for nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.test_docs_run import PAGES, ROOT

LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\ssrc=["']?(?:https?:)?//|<link\b[^>]*?\shref=["']?(?:https?:)?//"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_page_is_built_and_in_the_navigation(site: Path) -> None:
    menu = (site / "index.html").read_text(encoding="utf-8")
    for name in PAGES.keys() - {"README"}:
        assert (site / f"{name}.html").is_file()
        assert f'href="{name}.html"' in menu, name
    assert not list(site.rglob("*.py"))


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    assert LOADED.search('<link rel="stylesheet" href="https://fonts.example/css">')
    assert LOADED.search("<script async src=//cdn.example/x.js>")
    for page in site.rglob("*.html"):
        found = LOADED.findall(
            page.read_text(encoding="utf-8").replace('<link rel="canonical"', "")
        )
        assert found == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(
            r"url\(\s*['\"]?(?:https?:)?//|@import\s+['\"](?:https?:)?//",
            sheet.read_text(encoding="utf-8"),
        ), sheet


def test_links_that_leave_the_pages_are_no_dead_ends(site: Path) -> None:
    for page in set(site.rglob("*.html")) - {site / "404.html"}:
        for link in re.findall(
            r'<a [^>]*?href="(?![a-z]+:)([^"#]+)[^"]*"', page.read_text(encoding="utf-8")
        ):
            assert (page.parent / link).exists(), (page.name, link)
