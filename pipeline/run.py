"""The story of a build: documents in, catalog out. Read this first.

A stage is a function `stage(inputs..., folder, config) -> Part` that does nothing if its part is there. `each` decides who calls it:
a plain loop here, Prefect tasks in `flows/build.py`. The catalog is the same.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from data_catalog.format.layout import Layout
from pipeline.cluster.stage import assign_part, load_tree, train_tree
from pipeline.config import Build, Target
from pipeline.dedup.semantic import drop_near, near_part
from pipeline.dedup.signatures import sign_part
from pipeline.dedup.stage import dedup
from pipeline.describe.domains import describe_domains
from pipeline.describe.health import check_labels
from pipeline.describe.stage import describe_part
from pipeline.distribution import target_part
from pipeline.embed.encoder import identify
from pipeline.embed.stage import embed_part
from pipeline.parts import Part, sole_builder
from pipeline.publish.stage import Built, publish
from pipeline.quality.stage import judge_part
from pipeline.shard.stage import shard_part, sort_part
from pipeline.shard.tokenize import make_tokenizer
from pipeline.source.documents import Shard
from pipeline.source.stage import plan, read_shard
from pipeline.source.targets import check_targets


class Each(Protocol):
    """Calls `function` once with each tuple of arguments and returns the results in that order."""

    def __call__(
        self, stage: str, function: Callable[..., Part], calls: Sequence[tuple[Any, ...]]
    ) -> list[Part]: ...


def one_by_one(
    stage: str,  # noqa: ARG001 (a loop needs no names)
    function: Callable[..., Part],
    calls: Sequence[tuple[Any, ...]],
) -> list[Part]:
    return [function(*arguments) for arguments in calls]


def check(config: Build) -> list[Shard]:
    """The pieces of the corpus. Raises UserError for what is wrong with the request, before any work starts."""
    check_targets(config)
    check_labels(config.labels)
    identify(config.embed)
    return plan(config)


def build(config: Build, each: Each = one_by_one) -> Path:
    """Build the catalog that `config` describes and return its folder; work already done with this config is kept.

    Raises UserError if the config asks for what the data or this machine cannot give; nothing is half-published.
    """
    shards = check(config)
    work = Layout(config.out).work
    with sole_builder(work):
        return _build(shards, work, config, each)


def _build(shards: list[Shard], work: Path, config: Build, each: Each) -> Path:
    def at(stage: str, part: Part | Shard | Target | None = None) -> Path:
        return work / stage / (part.name if part else "all")

    tiers = config.dedup.tiers

    # Documents: read, judged by the quality rules, one copy of each kept.
    sources = each("source", read_shard, [(shard, at("source", shard), config) for shard in shards])
    judged = each("quality", judge_part, [(part, at("quality", part), config) for part in sources])
    pairs = zip(shards, sources, strict=True) if "minhash" in tiers else ()
    signed = each(
        "sign", sign_part, [(shard, part, at("sign", part), config) for shard, part in pairs]
    )
    [unique] = each("dedup", dedup, [(sources, judged, signed, at("dedup"), config)])

    # Meaning: one vector a document, one tree over the vectors, one leaf a document; near copies by meaning go.
    embedded = each(
        "embed", embed_part, [(part, unique, at("embed", part), config) for part in sources]
    )
    [tree] = each("tree", train_tree, [(embedded, at("tree"), config)])
    assigned = each(
        "assign", assign_part, [(part, tree, at("assign", part), config) for part in embedded]
    )
    levels = load_tree(tree.folder).levels
    tops = range(levels.granularities[0])
    semantic: list[Part] = []
    if "semantic" in tiers:
        near = each(
            "near",
            near_part,
            [(top, embedded, assigned, work / "near" / f"{top:04d}", levels) for top in tops],
        )
        semantic = each("semantic", drop_near, [(near, sources, unique, at("semantic"), config)])
    [final] = semantic or [unique]

    # The store: documents and their tokens, written once, in the order of the leaves.
    [tokenizer] = each("tokenizer", make_tokenizer, [(sources, final, at("tokenizer"), config)])
    triples = zip(sources, judged, assigned, strict=True)
    runs = each(
        "sort",
        sort_part,
        [
            (part, j, unique, final, a, tokenizer, at("sort", part), config)
            for part, j, a in triples
        ],
    )
    stored = each(
        "shard",
        shard_part,
        [(top, runs, work / "shard" / f"{top:04d}", config, levels) for top in tops],
    )

    # What the domains are, and where the targets fall.
    targets = config.all_targets()
    placed = each(
        "targets",
        target_part,
        [(target, tree, tokenizer, at("targets", target), config) for target in targets],
    )
    described = each(
        "describe", describe_part, [([part], at("describe", part), levels) for part in stored]
    )
    [description] = each(
        "domains", describe_domains, [(described, stored, tree, at("domains"), config, levels)]
    )

    stages = {
        "source": sources,
        "quality": judged,
        "dedup": [unique],
        "embed": embedded,
        "assign": assigned,
        "sort": runs,
        "shard": stored,
    }
    stages |= {"semantic": semantic} if semantic else {}
    return publish(Built(stages, tree, tokenizer, placed, description), levels, config)
