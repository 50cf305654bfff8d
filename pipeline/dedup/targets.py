"""Texts of targets: documents of the corpus must not repeat them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Int64, UInt8, UInt64

from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.manifest import fingerprint
from data_catalog.place import Folder
from pipeline.config import Build, Dedup
from pipeline.dedup.signatures import SIGNATURES_FILE, sign
from pipeline.dedup.sketches import estimate_similarity, minimum_estimate, read_bands
from pipeline.parts import Part, make_part
from pipeline.source.documents import text_digest
from pipeline.source.stage import DOCUMENTS_FILE
from pipeline.source.targets import read_target

# Versions of the output:
# 1: digests and signatures.
VERSION = 1
DIGESTS_FILE = "digests.parquet"  # column `digest`, see `text_digest`
# Maximum number of targets' documents that a document is compared with for one shared band. More
# share a band only if they are variants of one template.
MAXIMUM_BAND_TARGETS = 64
_BLOCK_PAIRS = 65_536


@dataclass(frozen=True)
class KnownTexts:
    """Texts of a catalog that documents are added to. A document equal to one is dropped."""

    digests: tuple[Part, ...]  # each with a DIGESTS_FILE: a column `digest` (see `text_digest`)
    documents: int  # number of documents of the catalog, to size the buckets
    fingerprint: str  # of the contents of the files
    # each with a DOCUMENTS_FILE: a column `text`. The tier minhash drops near copies of these too.
    targets: tuple[Part, ...] = ()


def target_texts(config: Build) -> dict[str, str]:
    """Return the texts of the documents of all targets by digest, in the order of the digests.

    Raises:
        UserError: A target cannot be read, see `pipeline.source.targets.read_target`.
    """
    columns = (read_target(target, config.source)[0]["text"] for target in config.all_targets())
    texts = {text_digest(text): text for column in columns for text in column.to_pylist()}
    return dict(sorted(texts.items()))


def protect_targets(
    texts: Mapping[str, str], known: KnownTexts | None, folder: Folder, config: Dedup
) -> Part:
    """Write the digests of targets' texts, and their signatures if the tier minhash needs them.

    Args:
        texts: Texts of the documents of all targets, as of `target_texts`.
        known: Texts of the catalog to add to. Its targets are signed too.
        folder: The part's folder.
        config: The tiers and the similarity.
    """
    with_near = "minhash" in config.tiers

    def make(out: Path) -> Account:
        pq.write_table(pa.table({"digest": pa.array([*texts], pa.string())}), out / DIGESTS_FILE)
        if with_near:
            signed = sign([*texts.values(), *_known_targets(known)], config.similarity)
            column = pa.array(list(signed), tables.SIGNATURES.field("bands").type)
            pq.write_table(pa.table([column], schema=tables.SIGNATURES), out / SIGNATURES_FILE)
        amount = Tally(rows=len(texts))
        return Account(read=amount, kept=amount)

    of_known = known.fingerprint if known and with_near else None
    similarity = config.similarity if with_near else None
    return make_part(
        folder, fingerprint("protected", VERSION, [*texts], of_known, similarity), make
    )


@dataclass(frozen=True)
class TargetIndex:
    """Signatures of targets' documents by band."""

    hashes: UInt64[np.ndarray, " bands"]  # ascending, at most `MAXIMUM_BAND_TARGETS` times the same
    owners: Int64[np.ndarray, " bands"]  # document of each
    sketches: UInt8[np.ndarray, "targets values"]
    minimum: float  # estimated similarity of near copies

    @classmethod
    def read(cls, protected: Part, similarity: float) -> "TargetIndex":
        signatures = pq.read_table(protected.file(SIGNATURES_FILE))["bands"]
        hashes, sketches = read_bands(signatures.combine_chunks().drop_null(), similarity)
        # One document for each signature.
        sketches, chosen = np.unique(sketches, axis=0, return_index=True)
        hashes = hashes[chosen]
        order = np.argsort(hashes, axis=None, kind="stable")
        flat = hashes.ravel()[order]
        rank = np.arange(len(flat)) - np.searchsorted(flat, flat)
        is_kept = rank < MAXIMUM_BAND_TARGETS
        owners = order[is_kept] // max(hashes.shape[1], 1)
        return cls(flat[is_kept], owners, sketches, minimum_estimate(similarity))

    def near(
        self,
        hashes: UInt64[np.ndarray, "documents bands"],
        sketches: UInt8[np.ndarray, "documents values"],
    ) -> Bool[np.ndarray, " documents"]:
        """Return whether each document is a near copy of a target's document."""
        is_near = np.zeros(len(sketches), bool)
        low = np.searchsorted(self.hashes, hashes.ravel())
        counts = np.searchsorted(self.hashes, hashes.ravel(), side="right") - low
        document = np.repeat(np.arange(hashes.size) // max(hashes.shape[1], 1), counts)
        ends = np.cumsum(counts)
        bands = np.arange(len(document)) + np.repeat(low - (ends - counts), counts)
        for first in range(0, len(document), _BLOCK_PAIRS):
            block = slice(first, first + _BLOCK_PAIRS)
            estimate = estimate_similarity(
                sketches[document[block]], self.sketches[self.owners[bands[block]]]
            )
            is_near[document[block][estimate >= self.minimum]] = True
        return is_near


def _known_targets(known: KnownTexts | None) -> Iterator[str]:
    for part in known.targets if known else ():
        table = pq.read_table(part.file(DOCUMENTS_FILE), columns=["text"])
        yield from table["text"].to_pylist()
