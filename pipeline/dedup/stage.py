"""Final verdicts before clustering: drops by quality, and copies with one of each family kept."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, UInt8

from data_catalog.format.accounts import Account, Tally, total
from data_catalog.format.manifest import fingerprint
from pipeline.config import Dedup
from pipeline.dedup.exact import KnownTexts, exact_copies
from pipeline.dedup.minhash import near_copies
from pipeline.dedup.places import Places, place_rows, places_in_part, scratch_database
from pipeline.parts import Part, make_part
from pipeline.quality.stage import VERDICTS_FILE
from pipeline.source.stage import DOCUMENTS_FILE
from pipeline.verdicts import write_verdicts

logger = logging.getLogger(__name__)

# Versions of the output:
# 1: shipped and exact copies.
# 2: also copies of targets, near copies and documents known already.
VERSION = 2
TARGET, SHIPPED, DIGEST, MINHASH = (
    f"dedup.{tier}" for tier in ("target", "shipped", "digest", "minhash")
)


def dedup(
    sources: Sequence[Part],
    judged: Sequence[Part],
    signatures: Sequence[Part],
    folder: Path,
    config: Dedup,
    digests: Sequence[str] = (),
    known: Sequence[KnownTexts] = (),
) -> Part:
    """Drop copies, and write the final verdicts before clustering.

    Writes `NAME.parquet` (tables.VERDICTS) for each source part, rows in its order. For documents
    that quality kept, the first reason of these that holds is added:

    - `dedup.target`, always: the text equals a document of a target.
    - The reason of `known`: the text equals one of another collection, such as the catalog's.
    - `dedup.shipped`: the corpus itself lists the document as a copy. The copy that it keeps may
      lie outside the files of this build.
    - `dedup.digest`: the text equals an earlier document.
    - `dedup.minhash`: the document shares a band of its signature with an earlier document, or is
      linked to one by a chain of shared bands.

    The last three are tiers of `dedup.tiers`. Documents are ordered by part, then row, among those
    that no reason above dropped. So one of each family stays, and it does not depend on how the
    work was split. Memory: 1 GB of DuckDB, which then spills to disk, and some bytes per dropped
    document.

    Args:
        sources: Source parts, with unique names.
        judged: Quality's part for each source part.
        signatures: The part of `sign_part` for each source part. Needed by the tier minhash
            only.
        folder: The part's folder.
        config: The tiers.
        digests: Digests of the documents of all targets, as of `target_digests`.
        known: Texts that are elsewhere already.

    Raises:
        ValueError: The parts do not match.
    """
    tiers = config.tiers
    names = [part.name for part in sources]
    if len(set(names)) != len(names) or len(judged) != len(sources):
        raise ValueError(
            f"dedup: {len(judged)} parts of verdicts for the source parts {names}. "
            "Expected one each, and unique names."
        )
    if "minhash" in tiers and len(signatures) != len(sources):
        raise ValueError(
            f"dedup: {len(signatures)} parts of signatures for {len(names)} source parts. "
            "Expected one each."
        )

    def make(out: Path) -> Account:
        reasons = [TARGET, *(texts.reason for texts in known), SHIPPED, DIGEST, MINHASH]
        if "shipped" in tiers and not any(_lists(source) for source in sources):
            logger.warning(
                "dedup.tiers: shipped drops nothing, because the corpus has no duplicates file. "
                "Use digest."
            )
        places, codes = _copies(
            sources,
            judged,
            signatures if "minhash" in tiers else (),
            out,
            tiers,
            digests,
            known,
            reasons,
        )
        accounts: list[Account] = []
        for number, (source, verdict) in enumerate(zip(sources, judged, strict=True)):
            in_part = places_in_part(number, places)
            table, account = decide(
                pq.read_table(verdict.folder / VERDICTS_FILE),
                place_rows(places[in_part]),
                codes[in_part],
                reasons,
            )
            write_verdicts(out / f"{source.name}.parquet", table)
            accounts.append(account)
        return total(accounts)

    inputs = [
        [source.name, source.fingerprint, verdict.fingerprint]
        for source, verdict in zip(sources, judged, strict=True)
    ]
    asked = [tier for tier in ("shipped", "digest", "minhash") if tier in tiers]
    bands = [part.fingerprint for part in signatures] if "minhash" in tiers else []
    elsewhere = [[texts.reason, texts.fingerprint] for texts in known]
    return make_part(
        folder, fingerprint("dedup", VERSION, asked, inputs, bands, digests, elsewhere), make
    )


def decide(
    verdicts: pa.Table, rows: Places, codes: UInt8[np.ndarray, " copies"], reasons: Sequence[str]
) -> tuple[pa.Table, Account]:
    """Return one part's verdicts with `reasons[codes[i]]` at `rows[i]`, and the account.

    The account covers the documents that were kept before.
    """
    lengths = verdicts["characters"].to_numpy()
    read = kept_mask(verdicts)
    code = np.full(len(read), len(reasons))
    code[rows] = codes
    added = pa.array([*reasons, None], pa.string()).take(pa.array(code))
    final = verdicts.set_column(
        verdicts.schema.get_field_index("reason"), "reason", pc.coalesce(verdicts["reason"], added)
    )

    def tally(mask: Bool[np.ndarray, " documents"]) -> Tally:
        return Tally(rows=int(mask.sum()), characters=int(lengths[mask].sum()))

    dropped = {
        reason: tally(read & (code == i))
        for i, reason in enumerate(reasons)
        if (read & (code == i)).any()
    }
    return final, Account(
        read=tally(read), kept=tally(read & (code == len(reasons))), dropped=dropped
    )


def kept_mask(verdicts: pa.Table) -> Bool[np.ndarray, " documents"]:
    mask: Bool[np.ndarray, " documents"] = pc.is_null(verdicts["reason"]).to_numpy()
    return mask


def _copies(
    sources: Sequence[Part],
    judged: Sequence[Part],
    signatures: Sequence[Part],
    out: Path,
    tiers: Sequence[str],
    digests: Sequence[str],
    known: Sequence[KnownTexts],
    reasons: Sequence[str],
) -> tuple[Places, UInt8[np.ndarray, " copies"]]:
    """Return the places to drop, ascending, and the number of each one's reason."""
    places: Places = np.empty(0, np.int64)
    codes: UInt8[np.ndarray, " copies"] = np.empty(0, np.uint8)

    def alive(number: int) -> Bool[np.ndarray, " documents"]:
        mask = kept_mask(pq.read_table(judged[number].folder / VERDICTS_FILE, columns=["reason"]))
        mask[place_rows(places[places_in_part(number, places)])] = False
        return mask

    shipped, digest, minhash = (reasons.index(reason) for reason in (SHIPPED, DIGEST, MINHASH))
    with scratch_database(out) as connection:
        if digests or known or {"shipped", "digest"} & set(tiers):
            texts = [pa.table({"digest": pa.array(digests, pa.string())}), *known]
            by_list, by_digest = (
                (shipped if "shipped" in tiers else None),
                (digest if "digest" in tiers else None),
            )
            places, codes = exact_copies(
                connection, sources, alive, texts, range(len(texts)), by_list, by_digest
            )
        if signatures:
            near = near_copies(connection, signatures, alive)
            order = np.argsort(np.concatenate([places, near]))
            codes = np.concatenate([codes, np.full(len(near), minhash, np.uint8)])[order]
            places = np.concatenate([places, near])[order]
    return places, codes


def _lists(source: Part) -> bool:
    """Return whether the corpus has a list of duplicates for this part."""
    return bool(
        pq.read_table(source.folder / DOCUMENTS_FILE, columns=["shipped_duplicate"])[
            "shipped_duplicate"
        ]
        .is_valid()
        .to_numpy()
        .any()
    )
