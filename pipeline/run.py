"""The story of a build: documents in, catalog out. Read this first.

A stage is a function `stage(inputs..., folder, config) -> Part` that does nothing if its part is there. `each` decides who calls it:
a plain loop here, Prefect tasks in `flows/build.py`. The catalog is the same.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from data_catalog.layout import Layout
from pipeline.catalog import Built, publish
from pipeline.cluster import assign_part, load_tree, train_tree
from pipeline.config import Build
from pipeline.dedup.exact import dedup
from pipeline.describe import describe
from pipeline.distribution import target_part
from pipeline.embed import embed_part
from pipeline.encoder import identify
from pipeline.parts import Part
from pipeline.quality import judge_part
from pipeline.shard import shard_part, sort_part
from pipeline.source import plan, read_shard
from pipeline.sources.documents import Shard
from pipeline.targets import check_targets
from pipeline.tokenize import make_tokenizer


class Each(Protocol):
    """Calls `function` once with each tuple of arguments and returns the results in that order."""

    def __call__(self, stage: str, function: Callable[..., Part], calls: Sequence[tuple[Any, ...]]) -> list[Part]: ...


def one_by_one(stage: str, function: Callable[..., Part], calls: Sequence[tuple[Any, ...]]) -> list[Part]:  # noqa: ARG001
    return [function(*arguments) for arguments in calls]


def check(config: Build) -> list[Shard]:
    """The pieces of the corpus. Raises UserError for what is wrong with the request, before any work starts."""
    check_targets(config)
    identify(config.embed)
    return plan(config)


def build(config: Build, each: Each = one_by_one) -> Path:
    """Build the catalog that `config` describes and return its folder; work already done with this config is kept.

    Raises UserError if the config asks for what the data or this machine cannot give; nothing is half-published.
    """
    work = Layout(config.out).work
    shards = check(config)

    def at(stage: str, part: Any = None) -> Path:
        return work / stage / (part.name if part else "all")

    # Documents: read, judged by the quality rules, one copy of each kept.
    sources = each("source", read_shard, [(shard, at("source", shard), config) for shard in shards])
    judged = each("quality", judge_part, [(part, at("quality", part), config) for part in sources])
    [unique] = each("dedup", dedup, [(sources, judged, at("dedup"), config)])

    # Meaning: one vector a document, one tree over the vectors, one leaf a document.
    embedded = each("embed", embed_part, [(part, unique, at("embed", part), config) for part in sources])
    [tree] = each("tree", train_tree, [(embedded, at("tree"), config)])
    assigned = each("assign", assign_part, [(part, tree, at("assign", part), config) for part in embedded])
    levels = load_tree(tree.folder).levels

    # The store: documents and their tokens, written once, in the order of the leaves.
    [tokenizer] = each("tokenizer", make_tokenizer, [(sources, unique, at("tokenizer"), config)])
    pairs = zip(sources, assigned, strict=True)
    runs = each("sort", sort_part, [(part, unique, a, tokenizer, at("sort", part), config, levels) for part, a in pairs])
    stored = each("shard", shard_part, [(top, runs, work / "shard" / f"{top:04d}", levels) for top in range(levels.granularities[0])])

    # What the domains are, and where the targets fall.
    targets = config.all_targets()
    placed = each("targets", target_part, [(target, tree, tokenizer, at("targets", target), config) for target in targets])
    [description] = each("describe", describe, [(stored, at("describe"), levels)])

    stages = {"source": sources, "quality": judged, "dedup": [unique], "embed": embedded, "assign": assigned, "sort": runs, "shard": stored}
    return publish(Built(stages, tree, tokenizer, placed, description), levels, config)
