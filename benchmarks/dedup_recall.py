"""Measure the recall of each dedup tier on planted copies, its other drops, and its speed.

A family is an original with its planted copies. Recall is the share of the surplus members (all
but one per family) that were dropped. The column "near recall >= tier" counts only the pairs of an
original and a near copy whose Jaccard similarity is at least that of the tier. The column "beyond"
counts families that lost their last document. Most of these documents are near copies that were
not planted. For each of them, the exact Jaccard similarity of 13-word shingles to the most similar
kept document is given.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TypeVar

import numpy as np
import pyarrow.parquet as pq

from benchmarks.hardware import headline, today
from data_catalog.settings import parse
from pipeline.cluster.tree import load_tree
from pipeline.config import Build
from pipeline.dedup.semantic import drop_near, near_part
from pipeline.dedup.shuffle import drop_copies
from pipeline.dedup.signatures import BANDS, shingles, sign, sign_part
from pipeline.dedup.stage import kept_mask
from pipeline.parts import Part, read_part
from pipeline.quality.stage import judge_part
from pipeline.run import one_by_one
from pipeline.source.registry import corpus_source
from pipeline.source.stage import DOCUMENTS_FILE, read_shard
from pipeline.verdicts import read_verdicts

T = TypeVar("T")
COSINES = (0.8, 0.85, 0.9, 0.95, 0.98)
SAMPLE = 1_000  # documents whose signatures are computed from the text


@dataclass(frozen=True)
class Corpus:
    """The documents of the sample corpus and their planted families."""

    sources: Sequence[Part]
    truth: dict[str, tuple[str, str | None, float | None]]
    """Family, kind of planted copy and Jaccard similarity to the original by doc_id. The last two
    of an original are None."""

    @cached_property
    def ids(self) -> list[str]:
        columns = (
            pq.read_table(part.folder / DOCUMENTS_FILE, columns=["doc_id"])["doc_id"]
            for part in self.sources
        )
        return [doc_id for column in columns for doc_id in column.to_pylist()]

    @cached_property
    def families(self) -> np.ndarray:
        """Number of the family of each document."""
        return np.unique([self.truth[doc_id][0] for doc_id in self.ids], return_inverse=True)[1]

    def planted(self, kind: str) -> np.ndarray:
        """Return a mask of the planted copies of a kind: "exact" or "near"."""
        return np.array([self.truth[doc_id][1] == kind for doc_id in self.ids])

    @cached_property
    def jaccard(self) -> np.ndarray:
        """Similarity of each planted near copy to its original, 0 for other documents."""
        return np.array(
            [
                self.truth[doc_id][2] or 0 if self.truth[doc_id][1] == "near" else 0
                for doc_id in self.ids
            ]
        )

    @cached_property
    def shingles(self) -> list[np.ndarray]:
        texts = (
            pq.read_table(part.folder / DOCUMENTS_FILE, columns=["text"])["text"].to_pylist()
            for part in self.sources
        )
        return [
            np.array([hash(shingle) for shingle in shingles(text)], np.int64)
            for part in texts
            for text in part
        ]

    @cached_property
    def index(self) -> tuple[np.ndarray, np.ndarray]:
        """Sorted hashes of all shingles, and the document that each one belongs to."""
        flat = np.concatenate(self.shingles)
        order = np.argsort(flat, kind="stable")
        return flat[order], np.repeat(
            np.arange(len(self.shingles)), [len(hashes) for hashes in self.shingles]
        )[order]

    def most_similar(self, document: int, among: np.ndarray) -> float:
        """Return the maximum Jaccard similarity of a document to those in the mask `among`."""
        hashes, owners = self.index
        own = self.shingles[document]
        low, high = np.searchsorted(hashes, own), np.searchsorted(hashes, own, side="right")
        shared = np.bincount(
            np.concatenate([owners[a:b] for a, b in zip(low, high, strict=True)] or [owners[:0]]),
            minlength=len(among),
        )
        shared[document] = 0
        others = np.flatnonzero((shared > 0) & among)
        sizes = np.array([len(self.shingles[other]) for other in others])
        return float((shared[others] / (len(own) + sizes - shared[others])).max(initial=0))


def kept_of(sources: Sequence[Part], verdicts: Sequence[Part]) -> np.ndarray:
    """Return a mask of the kept documents of all sources."""
    return np.concatenate(
        [
            kept_mask(read_verdicts(part, of_part))
            for part, of_part in zip(sources, verdicts, strict=True)
        ]
    )


def judge(
    corpus: Corpus,
    name: str,
    before: np.ndarray,
    after: np.ndarray,
    seconds: float,
    similarity: float | None = None,
) -> str:
    """Return a table row. `before` and `after` are masks of the kept documents."""

    def left(mask: np.ndarray) -> np.ndarray:
        return np.bincount(corpus.families[mask], minlength=corpus.families.max() + 1)

    def recall(kind: str) -> str:
        """Return the share of surplus members dropped, over families with this kind of copy."""
        other = corpus.planted("near" if kind == "exact" else "exact")
        members, remaining = left(before & ~other), left(after & ~other)
        surplus = np.maximum(members - 1, 0)
        return (
            f"{1 - np.maximum(remaining - 1, 0)[surplus > 0].sum() / surplus.sum():.3f}"
            if surplus.sum()
            else ""
        )

    def alike() -> str:
        """Return the share of near copies of at least `similarity` that were dropped."""
        copies = before & (corpus.jaccard >= (similarity or 1))
        if similarity is None or not copies.any():
            return ""
        others = left(after & ~corpus.planted("near"))
        # If the copy comes first, the original is the one that is dropped.
        is_kept = after[copies] & (others[corpus.families[copies]] > 0)
        return f"{1 - is_kept.mean():.3f}"

    gone = left(before) > 0
    gone &= left(after) == 0
    beyond = [
        int(np.flatnonzero(before & (corpus.families == family))[0])
        for family in np.flatnonzero(gone)
    ]
    similar = np.array([corpus.most_similar(document, after) for document in beyond])
    shares = " | ".join(
        str(int(count))
        for count in ((similar >= 0.7).sum(), (similar >= 0.5).sum(), (similar < 0.5).sum())
    )
    rate = f"{before.sum() / seconds:,.0f}" if seconds else ""
    return (
        f"| {name} | {before.sum() - after.sum()} | {recall('exact')} | {recall('near')} "
        f"| {alike()} | {len(beyond)} | {shares} | {rate} |"
    )


def timed(function: Callable[[], T]) -> tuple[T, float]:
    started = perf_counter()
    made = function()
    return made, perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("../shared/corpus"))
    parser.add_argument(
        "--catalog",
        type=Path,
        default=Path("catalogs/sample"),
        help="catalog built from the corpus, for its embeddings",
    )
    arguments = parser.parse_args()
    table = pq.read_table(
        arguments.corpus / "truth.parquet",
        columns=["doc_id", "dup_of", "dup_kind", "dup_jaccard13"],
    ).to_pylist()
    truth = {
        row["doc_id"]: (row["dup_of"] or row["doc_id"], row["dup_kind"], row["dup_jaccard13"])
        for row in table
    }

    def config(*tiers: str, **settings: float) -> Build:
        source = {"kind": "rpv2", "path": str(arguments.corpus)}
        return parse(
            Build,
            {"out": "none", "source": source, "dedup": {"tiers": tiers, **settings}},
            "benchmark",
        )

    lines = [
        "| tiers | dropped | exact recall | near recall | near recall >= tier | beyond "
        "| Jaccard >= 0.7 | >= 0.5 | < 0.5 | documents/s |",
        "|---|" + "---|" * 9,
    ]
    with TemporaryDirectory() as name:
        root = Path(name)
        source = corpus_source(config())
        shards = source.plan().shards
        sources = [read_shard(shard, root / "source" / shard.name, source) for shard in shards]
        judged = [
            judge_part(part, root / "quality" / part.name, config().quality) for part in sources
        ]
        corpus = Corpus(sources, truth)
        everything = np.ones(len(corpus.ids), bool)

        def measure(settings: Build, label: str) -> None:
            work = root / label
            parts, seconds = timed(
                lambda: drop_copies(
                    shards, sources, judged, work, settings.dedup, one_by_one, targets={}
                )
            )
            kept = kept_of(sources, parts)
            similarity = settings.dedup.similarity if "minhash" in settings.dedup.tiers else None
            lines.append(judge(corpus, label, everything, kept, seconds, similarity))
            print(lines[-1], flush=True)

        measure(config("shipped"), "shipped")
        measure(config("digest"), "digest")
        signing = 0.0
        for similarity in BANDS:
            settings = config("digest", "minhash", similarity=similarity)
            label = f"digest, minhash {similarity}"
            started = perf_counter()
            for shard, part in zip(shards, sources, strict=True):
                sign_part(shard, part, root / label / "sign" / part.name, settings.dedup)
            signing = signing or perf_counter() - started
            measure(settings, label)
        texts = pq.read_table(sources[0].folder / DOCUMENTS_FILE, columns=["text"])[
            "text"
        ].to_pylist()[:SAMPLE]
        started = perf_counter()
        signed = len(list(sign(texts, 0.7))) / (perf_counter() - started)
        lines += semantic(arguments.catalog / "work", corpus, root, config)

    notes = (
        f"Signatures: {len(corpus.ids) / signing:,.0f} documents/s with the signatures that the "
        "corpus ships (those of its tail are computed), "
        f"{signed:,.0f} documents/s from the text ({len(texts)} documents of "
        f"{sum(map(len, texts)) / len(texts):,.0f} characters).\n"
    )
    text = (
        f"# Recall of dedup\n\n{headline()}\n\n{__doc__.split(chr(10), 2)[2].strip()}\n\n"
        + "\n".join(lines)
        + f"\n\n{notes}"
    )
    Path(f"benchmarks/results/{today()}-dedup-recall.md").write_text(text, encoding="utf-8")
    print(notes)


def semantic(work: Path, corpus: Corpus, root: Path, config: Callable[..., Build]) -> list[str]:
    """Return the table rows of the semantic tier, or no rows if there is no catalog.

    The tier gets the documents that the quality rules and exact tiers of the catalog kept.
    """
    stages = [
        [read_part(work / stage / part.name) for part in corpus.sources]
        for stage in ("dedup", "embed", "assign")
    ]
    if any(part is None for stage in stages for part in stage):
        return []
    unique, embedded, assigned = [[part for part in stage if part] for stage in stages]
    levels = load_tree(work / "tree" / "all").levels
    before = kept_of(corpus.sources, unique)
    lines = []
    for cosine in COSINES:
        settings = config("semantic", cosine=cosine)
        started = perf_counter()
        near = [
            near_part(top, embedded, assigned, root / "near" / str(top), levels, settings.dedup)
            for top in range(levels.granularities[0])
        ]
        part = drop_near(near, corpus.sources, unique, root / "final")
        seconds = perf_counter() - started
        name = f"semantic {cosine}, on {before.sum()} documents kept by the other rules"
        lines.append(
            judge(
                corpus,
                name,
                before,
                kept_of(corpus.sources, [part] * len(corpus.sources)),
                seconds,
            )
        )
        print(lines[-1], flush=True)
    return lines


if __name__ == "__main__":
    main()
