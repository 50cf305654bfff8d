"""Means of quality signals over the documents of each domain."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from data_catalog import Catalog
from data_catalog.query.views import view_files
from flows.pages.catalog.queries import query_rows
from flows.pages.shared.numbers import json_numbers

# Label by name of the signal, most informative first. A catalog has some of them.
SIGNAL_LABELS = {
    "ccnet_perplexity": "perplexity (CCNet)",
    "rps_doc_ml_wikipedia_score": "similarity to Wikipedia (classifier)",
    "rps_lines_ending_with_terminal_punctution_mark": "share of lines ending in punctuation",
    "rps_doc_stop_word_fraction": "share of stop words",
    "rps_doc_frac_unique_words": "share of unique words",
    "rps_doc_frac_chars_dupe_10grams": "share of characters in repeated 10-grams",
    "rps_doc_frac_no_alph_words": "share of words without letters",
}
MAXIMUM_SIGNALS = 6
MAXIMUM_SIGNAL_DOCUMENTS = 20_000_000  # reading more would take several minutes


def signal_means(
    catalog: Catalog, levels: Sequence[int]
) -> tuple[list[str], dict[int, list[list[Any]]]]:
    """Return the labels of the signals, and per level the means of each signal per domain.

    A mean is None if no document of the domain has the signal.

    Args:
        catalog: The catalog.
        levels: Levels of the catalog.

    Raises:
        UserError: A file of documents is damaged.
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
    sums = np.zeros((leaves, 2 * len(SIGNAL_LABELS)))
    query = f"SELECT leaf, {columns} FROM documents GROUP BY leaf"  # noqa: S608 (constants only)
    for leaf, *values in query_rows(catalog, query):
        if 0 <= leaf < leaves:
            sums[leaf] = [0 if value is None else value for value in values]
    known = [i for i in range(len(SIGNAL_LABELS)) if sums[:, 2 * i + 1].any()][:MAXIMUM_SIGNALS]
    names = list(SIGNAL_LABELS.values())
    return [names[i] for i in known], {
        k: [_means(sums[:, 2 * i : 2 * i + 2], k) for i in known] for k in levels
    }


def _means(sums: Float[np.ndarray, "leaves 2"], level: int) -> list[Any]:
    total, count = sums.reshape(level, -1, 2).sum(axis=1).T
    with np.errstate(invalid="ignore"):
        return json_numbers(total / np.where(count > 0, count, np.nan))
