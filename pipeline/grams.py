"""13-grams: runs of 13 normalised words, and the documents that share them.

Texts with a common passage of 13 words share a 13-gram, whatever comes before and after it.
"""

import string
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int64, UInt64

GRAM_WORDS = 13
MINIMUM_SHARE = 0.5  # of a document's 13-grams that another has, for the two to be close
# Documents with a 13-gram, above which it belongs to a template and not to a passage.
_TEMPLATE_SHARE, _MINIMUM_TEMPLATE, _MAXIMUM_TEMPLATE = 0.2, 10, 1_000
_BATCH_TEXTS = 64  # hashed at once, about 100 bytes of memory per word
_PREFIX_BITS = 24  # of a hash: a table of 16 MB
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so no word of a 13-gram is lost modulo 2^64
_PUNCTUATION = string.punctuation.encode()

Numbers = Int64[np.ndarray, " documents"]


def normalise(text: str) -> str:
    """Return the text without ASCII punctuation, in lower case and decomposed (NFD).

    White space is left as it is. RedPajama-V2 also collapses it before it decomposes, but no
    canonical decomposition makes or removes a space.
    """
    # In UTF-8 only ASCII characters have ASCII bytes.
    bare = text.encode().translate(None, _PUNCTUATION).decode().lower()
    return bare if bare.isascii() else unicodedata.normalize("NFD", bare)


@dataclass(frozen=True)
class GramIndex:
    """The distinct 13-grams of some documents, and the documents that have each.

    Memory: 16 bytes per distinct 13-gram, and 8 bytes per 13-gram and document.
    """

    grams: UInt64[np.ndarray, " grams"]  # ascending
    starts: Int64[np.ndarray, " grams_and_one"]  # where each one's documents begin in `holders`
    holders: Int64[np.ndarray, " pairs"]  # documents with gram 0, then with gram 1, ...
    sizes: Int64[np.ndarray, " all_documents"]  # number of distinct 13-grams of each document

    @cached_property
    def _has_prefix(self) -> Bool[np.ndarray, " prefixes"]:
        """Mask of the first bits of all 13-grams. It spares most 13-grams of a corpus a search."""
        has_prefix = np.zeros(1 << _PREFIX_BITS, bool)
        has_prefix[self.grams >> np.uint64(64 - _PREFIX_BITS)] = True
        return has_prefix

    def shared(self, texts: Sequence[str]) -> Iterator[tuple[int, Numbers, Numbers]]:
        """Yield the documents that have 13-grams in common with a text, and how many.

        The first element is the index of the text. Texts without any are left out.
        """
        for first in range(0, len(texts) if len(self.grams) else 0, _BATCH_TEXTS):
            grams, owner = _hash_grams(texts[first : first + _BATCH_TEXTS])
            is_possible = self._has_prefix[grams >> np.uint64(64 - _PREFIX_BITS)]
            grams, owner = grams[is_possible], owner[is_possible]
            place = np.minimum(np.searchsorted(self.grams, grams), len(self.grams) - 1)
            is_known = self.grams[place] == grams
            text, gram = np.divmod(
                np.unique(owner[is_known] * len(self.grams) + place[is_known]), len(self.grams)
            )
            for same in np.split(np.arange(len(text)), np.flatnonzero(np.diff(text)) + 1):
                if len(same):
                    yield first + int(text[same[0]]), *self._count(gram[same])

    def _count(self, gram: Int64[np.ndarray, " found"]) -> tuple[Numbers, Numbers]:
        """Return the documents that have any of some 13-grams, and the number that each has."""
        lengths = self.starts[gram + 1] - self.starts[gram]
        before = np.cumsum(lengths) - lengths
        places = np.arange(lengths.sum()) + np.repeat(self.starts[gram] - before, lengths)
        return np.unique(self.holders[places], return_counts=True)


def index_grams(texts: Sequence[str], most_documents: int | None = None) -> GramIndex:
    """Index the 13-grams of documents. Those of more than `most_documents` of them are left out.

    A document of fewer words has one 13-gram, which only equal documents share.
    """
    hashed = []
    for first in range(0, len(texts), _BATCH_TEXTS):
        grams, owner = _hash_grams(texts[first : first + _BATCH_TEXTS])
        hashed.append((grams, owner + first))
    grams = np.concatenate([np.empty(0, np.uint64), *(pair[0] for pair in hashed)])
    owner = np.concatenate([np.empty(0, np.int64), *(pair[1] for pair in hashed)])
    order = np.argsort(grams, kind="stable")  # owners of one gram stay ascending
    grams, owner = grams[order], owner[order]
    is_new = np.ones(len(grams), bool)
    is_new[1:] = (grams[1:] != grams[:-1]) | (owner[1:] != owner[:-1])
    grams, owner = grams[is_new], owner[is_new]
    known, counts = np.unique(grams, return_counts=True)
    if most_documents is not None:
        is_kept = counts <= most_documents
        owner = owner[np.repeat(is_kept, counts)]
        known, counts = known[is_kept], counts[is_kept]
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return GramIndex(known, starts, owner, np.bincount(owner, minlength=len(texts)))


def family_numbers(texts: Sequence[str]) -> Numbers:
    """Return a number for each document, which is equal for the documents of a family.

    Two documents are of one family if one has at least half of the other's 13-grams, or if a chain
    of such pairs links them. 13-grams of more than a fifth of the documents do not count, such as
    those of an instruction that is repeated in every document. The exact bound is at least 10 and
    at most 1,000 documents.
    """
    template = int(_TEMPLATE_SHARE * len(texts))
    index = index_grams(texts, min(max(template, _MINIMUM_TEMPLATE), _MAXIMUM_TEMPLATE))
    edges = [np.empty((2, 0), np.int64)]
    for text, documents, counts in index.shared(texts):
        smaller = np.minimum(index.sizes[text], index.sizes[documents])
        close = documents[counts >= MINIMUM_SHARE * smaller]
        edges.append(np.stack([np.full(len(close), text), close]))
    return component_numbers(len(texts), *np.concatenate(edges, axis=1))


def component_numbers(
    nodes: int, a: Int64[np.ndarray, " edges"], b: Int64[np.ndarray, " edges"]
) -> Int64[np.ndarray, " nodes"]:
    """Return the connected component of each node, of a graph with an edge from a[i] to b[i]."""
    from scipy.sparse import coo_array  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(nodes, nodes))
    numbers: Int64[np.ndarray, " nodes"] = connected_components(graph, directed=False)[1]
    return numbers.astype(np.int64)


def _hash_grams(
    texts: Sequence[str],
) -> tuple[UInt64[np.ndarray, " grams"], Int64[np.ndarray, " grams"]]:
    """Return a hash of every 13-gram of some texts, and the index of its text.

    Hashes are 64 bits, so that different 13-grams practically never share one. They differ between
    processes, as Python's hashes of words do.
    """
    words: list[str] = []
    lengths = np.zeros(len(texts), np.int64)
    for i, text in enumerate(texts):
        of_text = normalise(text).split()
        of_text += [""] * (GRAM_WORDS - len(of_text))
        words += of_text
        lengths[i] = len(of_text)
    values = np.fromiter(map(hash, words), np.int64, len(words)).view(np.uint64)
    starts = max(len(words) - GRAM_WORDS + 1, 0)
    grams = np.zeros(starts, np.uint64)
    for offset in range(GRAM_WORDS):
        grams = grams * _BASE + values[offset : offset + starts]
    owner = np.repeat(np.arange(len(texts)), lengths)[:starts]
    is_inside = np.arange(starts) + GRAM_WORDS <= np.cumsum(lengths)[owner]
    return grams[is_inside], owner[is_inside]
