"""The story of a build: documents in, catalog out. Read this first.

Every stage is a plain function `stage(inputs..., folder, config) -> Part` that does nothing if its part is already there.
`each` decides who calls it: a plain loop here, Prefect tasks in `flows/build.py`. The catalog is the same.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from data_catalog.layout import Layout
from pipeline.catalog import Built, publish
from pipeline.cluster import assign_part, load_tree, train_tree
from pipeline.config import Build
from pipeline.dedup import dedup
from pipeline.describe import describe
from pipeline.distribution import target_part
from pipeline.embed import embed_part
from pipeline.encoder import identify
from pipeline.parts import Part
from pipeline.quality import judge_part
from pipeline.shard import shard_part, sort_part
from pipeline.source import plan, read_shard
from pipeline.targets import check_targets
from pipeline.tokenize import make_tokenizer


class Each(Protocol):
    """Calls `function` once with each tuple of arguments and returns the results in that order."""

    def __call__(self, stage: str, function: Callable[..., Part], calls: Sequence[tuple[Any, ...]]) -> list[Part]: ...


def one_by_one(stage: str, function: Callable[..., Part], calls: Sequence[tuple[Any, ...]]) -> list[Part]:  # noqa: ARG001
    return [function(*arguments) for arguments in calls]


def build(config: Build, each: Each = one_by_one) -> Path:
    """Build the catalog that `config` describes and return its folder; work already done with this config is kept.

    Raises:
        UserError: the config asks for what the data or this machine cannot give; nothing is half-published.
    """
    work = Layout(config.out).work

    def folders(stage: str, parts: Sequence[Any]) -> list[Path]:
        return [work / stage / part.name for part in parts]

    # What is wrong with the request is said before any work starts.
    shards = plan(config)
    check_targets(config)
    identify(config.embed)

    # Documents: read, judged by the quality rules, one copy of each kept.
    sources = each("source", read_shard, [(s, f, config) for s, f in zip(shards, folders("source", shards), strict=True)])
    judged = each("quality", judge_part, [(s, f, config) for s, f in zip(sources, folders("quality", sources), strict=True)])
    [unique] = each("dedup", dedup, [(sources, judged, work / "dedup" / "all", config)])

    # Meaning: one vector a document, one tree over the vectors, one leaf a document.
    embedded = each("embed", embed_part, [(s, unique, f, config) for s, f in zip(sources, folders("embed", sources), strict=True)])
    [tree] = each("tree", train_tree, [(embedded, work / "tree" / "all", config)])
    assigned = each("assign", assign_part, [(e, tree, f, config) for e, f in zip(embedded, folders("assign", embedded), strict=True)])
    levels = load_tree(tree.folder).levels

    # The store: documents and their tokens, written once, in the order of the leaves.
    [tokenizer] = each("tokenizer", make_tokenizer, [(sources, unique, work / "tokenizer" / "all", config)])
    places = zip(sources, assigned, folders("sort", sources), strict=True)
    runs = each("sort", sort_part, [(s, unique, a, tokenizer, f, config, levels) for s, a, f in places])
    tops = range(levels.granularities[0])
    stored = each("shard", shard_part, [(top, runs, work / "shard" / f"{top:04d}", levels) for top in tops])

    # What the domains are, and where the targets fall.
    targets = config.all_targets()
    placed = each(
        "targets", target_part, [(t, tree, tokenizer, f, config) for t, f in zip(targets, folders("targets", targets), strict=True)]
    )
    [description] = each("describe", describe, [(stored, work / "describe" / "all", levels)])

    stages = {"source": sources, "quality": judged, "dedup": [unique], "embed": embedded, "assign": assigned, "sort": runs, "shard": stored}
    return publish(Built(stages, tree, tokenizer, placed, description), levels, config)
