"""Text and data of an HTML page."""

import json
import re
from pathlib import Path
from typing import Any


def data_of(page: Path) -> dict[str, Any]:
    """Return the data for the scripts of the page."""
    pattern = r'<script type="application/json" id="data">(.*?)</script>'
    return json.loads(re.search(pattern, page.read_text(), re.S)[1])


def words_of(page: Path) -> str:
    """Return the text of the page without scripts, with single spaces."""
    body = re.sub(r"<(script|style)\b.*?</\1>", "", page.read_text(), flags=re.S)
    text = re.sub(r"<[^>]+>", "", re.sub(r"</(td|th|p|li|summary)>", " ", body))
    return re.sub(r"\s+", " ", text)
