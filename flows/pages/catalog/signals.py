"""Quality of each domain: means of a few quality signals over its documents."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from data_catalog import Catalog
from data_catalog.query.database import view_files
from flows.pages.catalog.queries import ask
from flows.pages.shared.numbers import json_numbers

# Signals by their name in the catalog, most telling first; a catalog has some of them. RedPajama-V2's, and the same that are computed.
SIGNAL_LABELS = {
    "ccnet_perplexity": "perplexity (CCNet)",
    "rps_doc_ml_wikipedia_score": "likeness to Wikipedia (classifier)",
    "rps_lines_ending_with_terminal_punctution_mark": "lines that end in punctuation",
    "rps_doc_stop_word_fraction": "stop words among words",
    "rps_doc_frac_unique_words": "unique words among words",
    "rps_doc_frac_chars_dupe_10grams": "characters in repeated 10-grams",
    "rps_doc_frac_no_alph_words": "words without a letter",
}
MAXIMUM_SIGNALS = 6
MAXIMUM_SIGNAL_DOCUMENTS = 20_000_000  # every document's signals are read: beyond so many (a minute or two) the page goes without


def signal_means(
    catalog: Catalog, levels: Sequence[int]
) -> tuple[list[str], dict[int, list[list[Any]]]]:
    """Names for a reader, and by level the means of each signal by domain; None where no document of the domain has it.

    Raises:
        UserError: a file of documents is damaged.
    """
    if (
        "documents" not in view_files(catalog.manifest)
        or catalog.manifest.documents > MAXIMUM_SIGNAL_DOCUMENTS
    ):
        return [], {}
    columns = ", ".join(
        f"sum(v) FILTER (isfinite(v)) AS s{i}, count(v) FILTER (isfinite(v)) AS n{i}".replace(
            "v", f"signals['{key}']"
        )
        for i, key in enumerate(SIGNAL_LABELS)
    )
    leaves = catalog.levels.leaves
    found = np.zeros((leaves, 2 * len(SIGNAL_LABELS)))
    for leaf, *values in ask(catalog, f"SELECT leaf, {columns} FROM documents GROUP BY leaf"):  # noqa: S608 (constants only)
        if 0 <= leaf < leaves:
            found[leaf] = [0 if value is None else value for value in values]
    known = [i for i in range(len(SIGNAL_LABELS)) if found[:, 2 * i + 1].any()][:MAXIMUM_SIGNALS]
    names = list(SIGNAL_LABELS.values())
    return [names[i] for i in known], {
        k: [_means(found[:, 2 * i : 2 * i + 2], k) for i in known] for k in levels
    }


def _means(sums: Float[np.ndarray, "leaves 2"], level: int) -> list[Any]:
    total, count = sums.reshape(level, -1, 2).sum(axis=1).T
    with np.errstate(invalid="ignore"):
        return json_numbers(total / np.where(count > 0, count, np.nan))
