"""Final verdicts before clustering: drops by quality, and copies with one of each family kept."""

import logging
from collections.abc import Iterator, Mapping, Sequence
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
from pipeline.dedup.signatures import sign
from pipeline.parts import Part, make_part
from pipeline.quality.stage import VERDICTS_FILE
from pipeline.source.stage import DOCUMENTS_FILE
from pipeline.verdicts import write_verdicts

logger = logging.getLogger(__name__)

# Versions of the output:
# 1: shipped and exact copies.
# 2: also copies of targets, near copies and documents known already.
# 3: also near copies of targets.
VERSION = 3
_WITHOUT_NEAR_TARGETS = 2  # version of the same output without the tier minhash or targets
TARGET, SHIPPED, DIGEST, NEAR_TARGET, MINHASH = (
    f"dedup.{tier}" for tier in ("target", "shipped", "digest", "near_target", "minhash")
)


def dedup(
    sources: Sequence[Part],
    judged: Sequence[Part],
    signatures: Sequence[Part],
    folder: Path,
    config: Dedup,
    targets: Mapping[str, str] | None = None,
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
    - `dedup.near_target`: the document shares a band of its signature with a document of a target,
      or is linked to one by a chain of shared bands.
    - `dedup.minhash`: alike, with an earlier document.

    `shipped`, `digest` and `minhash`, which is the last two reasons, are tiers of `dedup.tiers`.
    Documents are ordered by part, then row, among those that no reason above dropped. So one of
    each family without a target stays, and it does not depend on how the work was split. Memory:
    `dedup.memory_megabytes` of DuckDB, which then spills to the folder for temporary files, some
    bytes per dropped document, and the texts of the targets.

    Args:
        sources: Source parts, with unique names.
        judged: Quality's part for each source part.
        signatures: The part of `sign_part` for each source part. Needed by the tier minhash
            only.
        folder: The part's folder.
        config: The tiers.
        targets: Texts of the documents of all targets, as of `target_texts`.
        known: Texts that are elsewhere already.

    Raises:
        ValueError: The parts do not match.
    """
    tiers, targets = config.tiers, targets or {}
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
        of_known = [texts.reason for texts in known]
        reasons = [TARGET, *of_known, SHIPPED, DIGEST, NEAR_TARGET, MINHASH]
        if "shipped" in tiers and not any(_lists(source) for source in sources):
            logger.warning(
                "dedup.tiers: shipped drops nothing, because the corpus has no duplicates file. "
                "Use digest."
            )
        places, codes = _copies(
            sources,
            judged,
            signatures if "minhash" in tiers else (),
            config,
            targets,
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
    has_targets = bool(targets) or any(texts.targets for texts in known)
    version = VERSION if "minhash" in tiers and has_targets else _WITHOUT_NEAR_TARGETS
    return make_part(
        folder, fingerprint("dedup", version, asked, inputs, bands, [*targets], elsewhere), make
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
    config: Dedup,
    targets: Mapping[str, str],
    known: Sequence[KnownTexts],
    reasons: Sequence[str],
) -> tuple[Places, UInt8[np.ndarray, " copies"]]:
    """Return the places to drop, ascending, and the number of each one's reason."""
    tiers = config.tiers
    places: Places = np.empty(0, np.int64)
    codes: UInt8[np.ndarray, " copies"] = np.empty(0, np.uint8)

    def alive(number: int) -> Bool[np.ndarray, " documents"]:
        mask = kept_mask(pq.read_table(judged[number].folder / VERDICTS_FILE, columns=["reason"]))
        mask[place_rows(places[places_in_part(number, places)])] = False
        return mask

    shipped, digest, near_target, minhash = (
        reasons.index(reason) for reason in (SHIPPED, DIGEST, NEAR_TARGET, MINHASH)
    )
    with scratch_database(config.memory_megabytes) as connection:
        if targets or known or {"shipped", "digest"} & set(tiers):
            texts = [pa.table({"digest": pa.array([*targets], pa.string())}), *known]
            by_list, by_digest = (
                (shipped if "shipped" in tiers else None),
                (digest if "digest" in tiers else None),
            )
            places, codes = exact_copies(
                connection, sources, alive, texts, range(len(texts)), by_list, by_digest
            )
        if signatures:
            bands = list(sign([*targets.values(), *_known_targets(known)], config.similarity))
            near, is_of_target = near_copies(connection, signatures, alive, bands)
            order = np.argsort(np.concatenate([places, near]))
            near_codes = np.where(is_of_target, near_target, minhash).astype(np.uint8)
            codes = np.concatenate([codes, near_codes])[order]
            places = np.concatenate([places, near])[order]
    return places, codes


def _known_targets(known: Sequence[KnownTexts]) -> Iterator[str]:
    for texts in known:
        for file in texts.targets:
            yield from pq.read_table(file, columns=["text"])["text"].to_pylist()


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
