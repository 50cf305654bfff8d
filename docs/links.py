"""Rewrite links of the documentation site that point outside of docs/, such as ../pipeline/run.py.

They lead to the repository, or become plain text if `extra.repository` is not set in mkdocs.yml.
"""

import posixpath
import re
from typing import Any

LINK = re.compile(
    r"(?<!!)\[(?P<words>(?:\\.|[^\]\\])*)\]\((?P<path>\.\.?/[^)#\s]*)(?P<anchor>#[^)\s]*)?\)"
)


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Rewrite the links of a page. mkdocs calls this for every page (`hooks` in mkdocs.yml)."""

    def rewritten(link: re.Match[str]) -> str:
        place = posixpath.normpath(
            posixpath.join("docs", posixpath.dirname(page.file.src_uri), link["path"])
        )
        if place.startswith("docs/"):
            return link[0]
        repository = config.extra.get("repository")
        return (
            f"[{link['words']}]({repository}/blob/main/{place}{link['anchor'] or ''})"
            if repository
            else link["words"]
        )

    return LINK.sub(rewritten, markdown)
