"""Assembly of a page: one HTML file with style, data and scripts, and no network access."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from flows.pages.shared.markup import escape_html, script_json

SHARED = "flows.pages.shared"
PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


def assemble(
    package: str,
    scripts: Sequence[str],
    *,
    title: str,
    fields: Mapping[str, str],
    data: Any,
    shared: Sequence[str] = (),
    live: bool = False,
) -> str:
    """Return the HTML of a page: `page.html` of `package` inside the shared shell.

    The shared style and script come before the `style.css` and `scripts` of the package.

    Args:
        package: Python package with the files of the page.
        scripts: Names of its scripts, in order.
        title: Title of the page as plain text.
        fields: HTML by name of its placeholder in `page.html`.
        data: Data for the scripts. Converted to JSON.
        shared: Names of further shared scripts, which come before those of the package.
        live: Allow requests to the server that the page came from.
    """
    style = asset(SHARED, "style.css") + asset(package, "style.css")
    inlined = [
        *(asset(SHARED, name) for name in ("base.js", *shared)),
        *(asset(package, name) for name in scripts),
        asset(SHARED, "contents.js"),
    ]
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
    """Fill the placeholders in one pass, so that placeholders in the fields have no effect."""
    return PLACEHOLDER.sub(lambda match: fields[match[1]], template)


def asset(package: str, name: str) -> str:
    """Return the text of a file in a package."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def policy(style: str, scripts: Sequence[str], live: bool) -> str:
    """Return a content security policy that only allows exactly these scripts and this style.

    It forbids all network access, except to the page's own server if `live`.
    """
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
