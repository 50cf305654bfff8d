"""Put a page together: one file with its style, its data and its scripts, which is never given the network."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from flows.pages.shared.markup import escape_html, script_json

SHARED = "flows.pages.shared"
PLACE = re.compile(r"\{\{(\w+)\}\}")


def assemble(
    package: str,
    scripts: Sequence[str],
    *,
    title: str,
    fields: Mapping[str, str],
    data: Any,
    live: bool = False,
) -> str:
    """The page's text: `page.html` of `package` in the shell, with the shared style and script before its own `style.css` and `scripts`.

    Args:
        title: plain text.
        fields: markup by the name of its place in `page.html`.
        data: what the scripts read; becomes JSON.
        live: whether the page may ask the server that it came from.
    """
    style = asset(SHARED, "style.css") + asset(package, "style.css")
    inlined = [asset(SHARED, "base.js"), *(asset(package, name) for name in scripts)]
    shell = {
        "policy": policy(style, inlined, live),
        "title": escape_html(title),
        "style": style,
        "body": _filled(asset(package, "page.html"), fields),
        "data": script_json(data),
        "scripts": "".join(f"<script>{script}</script>\n" for script in inlined),
    }
    return _filled(asset(SHARED, "page.html"), shell)


def _filled(template: str, fields: Mapping[str, str]) -> str:
    """One pass over the template: text from data is never searched for places."""
    return PLACE.sub(lambda match: fields[match[1]], template)


def asset(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")


def policy(style: str, scripts: Sequence[str], live: bool) -> str:
    """A content security policy: no network at all, or only the page's own server; and only exactly these scripts and this style."""
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in (style, *scripts)
    ]
    allowed = {
        "style-src": hashes[0],
        "script-src": " ".join(hashes[1:]),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        **({"connect-src": "'self'"} if live else {}),
    }
    return "; ".join(["default-src 'none'", *(f"{key} {value}" for key, value in allowed.items())])
