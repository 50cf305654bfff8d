"""The story of deduplication: quality's verdicts in, verdicts without copies out.

Documents are compared in buckets, which any number of workers can process. Each part sorts its
digests, and then the bands of its signatures, into buckets by their first bits, and equal ones of
all parts meet in the task of a bucket. No task needs memory for more than its bucket, and the
verdicts depend neither on the number of buckets nor on how documents were split into parts.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from data_catalog.place import Folder
from pipeline.config import Dedup
from pipeline.dedup.bands import MAXIMUM_BUCKET_BANDS, bands_part
from pipeline.dedup.buckets import bucket_count
from pipeline.dedup.exact import (
    LISTED,
    MAXIMUM_BUCKET_DIGESTS,
    copies_part,
    digests_part,
    known_digests_part,
)
from pipeline.dedup.pairs import pairs_part
from pipeline.dedup.resolve import resolve_part
from pipeline.dedup.signatures import BANDS, sign_part
from pipeline.dedup.stage import dedup_part
from pipeline.dedup.targets import KnownTexts, protect_targets
from pipeline.parts import Part
from pipeline.source.documents import Shard

logger = logging.getLogger(__name__)

MEMORY_STAGES = ("copies", "pairs", "resolve")  # each part takes `dedup.memory_megabytes`
# Runs one stage, see `pipeline.run.Each`.
RunStage = Callable[[str, Callable[..., Part], Sequence[tuple[Any, ...]]], list[Part]]


def drop_copies(
    shards: Sequence[Shard],
    sources: Sequence[Part],
    judged: Sequence[Part],
    work: Folder,
    config: Dedup,
    each: RunStage,
    targets: Mapping[str, str],
    known: KnownTexts | None = None,
) -> list[Part]:
    """Return the part with verdicts (see `dedup_part`) for each source part.

    Documents that quality kept are dropped for the first of these reasons that holds:

    - `dedup.target`, always: the text equals a document of a target.
    - `dedup.catalog`: the text equals one of the catalog that documents are added to.
    - `dedup.shipped`: the corpus itself lists the document as a copy. The copy that it keeps may
      lie outside the files of this build.
    - `dedup.digest`: the text equals an earlier document that no reason above drops.
    - `dedup.near_target`: the document is a near copy of a document of a target.
    - `dedup.minhash`: it is a near copy of an earlier document that stays.

    `shipped`, `digest` and `minhash`, which is the last two reasons, are tiers of `dedup.tiers`.
    Near copies share a band of their signatures, and the estimate of their similarity from the
    whole signatures reaches `dedup.similarity`. A copy of a copy is not enough.

    Args:
        shards: The shard of each source part.
        sources: Source parts.
        judged: Quality's part for each source part.
        work: Folder of the stages.
        config: The tiers.
        each: Runs one stage.
        targets: Texts of the documents of all targets, as of `target_texts`.
        known: Texts of the catalog that documents are added to.
    """
    # Documents are numbered in reading order.
    ends = list(accumulate((part.account.kept.rows for part in sources), initial=0))
    firsts, documents = ends[:-1], ends[-1]
    kept = sum(part.account.kept.rows for part in judged)
    [protected] = each(
        "protected", protect_targets, [(targets, known, work / "protected" / "all", config)]
    )

    # Exact copies: equal digests meet in a bucket.
    copies: list[Part] = []
    if targets or known or {"shipped", "digest"} & {*config.tiers}:
        buckets = bucket_count(kept + (known.documents if known else 0), MAXIMUM_BUCKET_DIGESTS)
        digests = each(
            "digests",
            digests_part,
            [
                (*parts, protected, first, buckets, work / "digests" / parts[0].name, config)
                for parts, first in zip(zip(sources, judged, strict=True), firsts, strict=True)
            ],
        )
        _warn_without_list(digests, config)
        if known:
            digests += each(
                "known-digests",
                known_digests_part,
                [
                    (known, number, buckets, work / "known-digests" / f"{number:05d}")
                    for number in range(len(known.digests))
                ],
            )
        copies = each(
            "copies",
            copies_part,
            [
                (bucket, digests, _bucket_folder(work, "copies", bucket), config)
                for bucket in range(buckets)
            ],
        )

    # Near copies: equal bands meet in a bucket, and documents are decided in reading order.
    drops: list[list[Part]] = [copies for _ in sources]
    if "minhash" in config.tiers:
        signed = each(
            "sign",
            sign_part,
            [
                (shard, part, work / "sign" / part.name, config)
                for shard, part in zip(shards, sources, strict=True)
            ],
        )
        number, _ = BANDS[config.similarity]
        buckets = bucket_count(kept * number, MAXIMUM_BUCKET_BANDS)
        bands = each(
            "bands",
            bands_part,
            [
                (*parts, copies, protected, first, buckets, work / "bands" / name, config)
                for parts, first, name in zip(
                    zip(judged, signed, strict=True),
                    firsts,
                    [part.name for part in sources],
                    strict=True,
                )
            ],
        )
        pairs = each(
            "pairs",
            pairs_part,
            [
                (bucket, bands, _bucket_folder(work, "pairs", bucket), config)
                for bucket in range(buckets)
            ],
        )
        [near] = each(
            "resolve", resolve_part, [(pairs, documents, work / "resolve" / "all", config)]
        )
        drops = [[*copies, part, near] for part in bands]

    return each(
        "dedup",
        dedup_part,
        [
            (source, verdicts, of_part, first, work / "dedup" / source.name)
            for source, verdicts, of_part, first in zip(sources, judged, drops, firsts, strict=True)
        ],
    )


def _bucket_folder(work: Folder, stage: str, bucket: int) -> Folder:
    return work / stage / f"{bucket:05d}"


def _warn_without_list(digests: Sequence[Part], config: Dedup) -> None:
    if "shipped" in config.tiers and not any(LISTED in part.account.noted for part in digests):
        logger.warning(
            "dedup.tiers: shipped drops nothing, because the corpus has no duplicates file. "
            "Use digest."
        )
