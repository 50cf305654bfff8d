"""The story of a build: documents in, catalog out. Read this first.

A stage is a function `stage(inputs..., folder, config section) -> Part`. It does nothing if its
part is already there. `each` decides who calls it: a plain loop here, Prefect tasks in
`flows/build.py`. The catalog is the same.

The order of the stages is in `document_stages` and `store_stages`. `pipeline/add.py` calls the same
two functions to add documents to a finished catalog.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, runtime_checkable

from data_catalog.format.layout import WORK, Levels
from data_catalog.place import Folder
from pipeline.cluster.backends.backend import check_backend
from pipeline.cluster.stage import assign_part, train_tree
from pipeline.cluster.tree import load_tree
from pipeline.config import Build
from pipeline.dedup.semantic import drop_near, near_part
from pipeline.dedup.shuffle import drop_copies
from pipeline.dedup.targets import target_texts
from pipeline.describe.domains import describe_domains
from pipeline.describe.health import check_labels
from pipeline.describe.leakage import leakage_part
from pipeline.describe.stage import describe_part
from pipeline.distribution import target_part
from pipeline.embed.encoder import check_encoder
from pipeline.embed.stage import embed_part
from pipeline.part_list import list_parts
from pipeline.parts import Part, sole_builder
from pipeline.publish.existing_catalog import ExistingCatalog
from pipeline.publish.out_folder import check_out_folder
from pipeline.publish.stage import Built, publish
from pipeline.quality.rules import resolve
from pipeline.quality.stage import judge_part
from pipeline.shard.ranges import plan_ranges, read_ranges
from pipeline.shard.stage import shard_part, sort_part
from pipeline.shard.tokenize import check_tokenizer, make_tokenizer
from pipeline.source.documents import Inventory, Shard
from pipeline.source.registry import corpus_source
from pipeline.source.stage import read_shard
from pipeline.source.targets import check_targets
from pipeline.source.text_field import check_text_field
from pipeline.verdicts import embedded_verdicts, final_verdicts


@runtime_checkable
class Each(Protocol):
    """A way to run one stage: call `function` once per argument tuple, results in that order."""

    def __call__(
        self, stage: str, function: Callable[..., Part], calls: Sequence[tuple[Any, ...]]
    ) -> list[Part]: ...


@dataclass(frozen=True)
class Documents:
    """The documents that were read and the tree that holds them.

    `stages` has the parts of source, quality, dedup, embed and assign, and of semantic if
    `dedup.tiers` names it. It is empty if no documents were read.
    """

    stages: Mapping[str, Sequence[Part]]
    tree: Part
    levels: Levels


def one_by_one(
    stage: str,  # noqa: ARG001 (a loop needs no names)
    function: Callable[..., Part],
    calls: Sequence[tuple[Any, ...]],
) -> list[Part]:
    """Run the parts of one stage in a plain loop."""
    return [function(*arguments) for arguments in calls]


def check_request(config: Build) -> Inventory:
    """Check a build's config before any work starts and return what there is to read.

    Nothing is written.

    Raises:
        UserError: The targets, the labels, the rules, the encoder, `cluster.backend`, the
            tokenizer, the source or the folder `out` cannot be used.
    """
    check_out_folder(config.out)
    check_targets(config)
    check_labels(config.labels)
    check_tokenizer(config.tokenizer)
    check_encoder(config.embed)
    check_backend(config.cluster.backend)
    return check_corpus(config)


def check_corpus(config: Build) -> Inventory:
    """Check the quality rules and the corpus before any work starts, and return what to read.

    Raises:
        UserError: The rules or the source cannot be used.
    """
    resolve(config.quality.preset, config.quality.thresholds)
    source = corpus_source(config)
    inventory = source.plan()
    check_text_field(source, inventory.shards)
    return inventory


def build(config: Build, each: Each = one_by_one) -> Folder:
    """Build the catalog that `config` describes and return its folder.

    Parts that were already made with this config are kept.

    Raises:
        UserError: The data or this machine cannot give what the config asks for. Nothing is
            half-published.
    """
    inventory = check_request(config)
    work = config.out / WORK
    with sole_builder(work) as lease:
        documents = document_stages(inventory.shards, work, config, each)
        sources, finals = documents.stages["source"], final_verdicts(documents.stages)
        tokenizer_folder = _folder(work, "tokenizer")
        [tokenizer] = each(
            "tokenizer",
            make_tokenizer,
            [(sources, finals, tokenizer_folder, config.tokenizer, config.seed)],
        )
        built = store_stages(documents, tokenizer, work, config, each)
        return publish(built, documents.levels, config, inventory.unread, lease)


def document_stages(
    shards: Sequence[Shard],
    work: Folder,
    config: Build,
    each: Each,
    existing: ExistingCatalog | None = None,
) -> Documents:
    """Read documents, drop those that are bad or copies, and find each one's leaf.

    An `existing` catalog gives its tree, and documents that it already holds are dropped. Without
    one, a tree is trained.
    """
    tiers = config.dedup.tiers

    # Documents: read them, judge them by the quality rules, keep one copy of each.
    source = corpus_source(config)
    sources = each(
        "source", read_shard, [(shard, _folder(work, "source", shard), source) for shard in shards]
    )
    judged = each(
        "quality",
        judge_part,
        [(part, _folder(work, "quality", part), config.quality) for part in sources],
    )
    known = existing.known(work / "known") if existing else None
    unique = drop_copies(
        shards, sources, judged, work, config.dedup, each, target_texts(config), known
    )

    # Meaning: one vector per document, one tree over the vectors, one leaf per document.
    embedded = each(
        "embed",
        embed_part,
        [
            (part, verdicts, _folder(work, "embed", part), config.embed)
            for part, verdicts in zip(sources, unique, strict=True)
        ],
    )
    if existing:
        tree = existing.tree
    else:
        [tree] = each(
            "tree", train_tree, [(embedded, _folder(work, "tree"), config.cluster, config.seed)]
        )
    assigned = each(
        "assign",
        assign_part,
        [(part, tree, _folder(work, "assign", part), config.cluster) for part in embedded],
    )
    levels = load_tree(tree.folder).levels
    stages = {
        "source": sources,
        "quality": judged,
        "dedup": unique,
        "embed": embedded,
        "assign": assigned,
    }

    # Near copies by meaning are searched inside the domains.
    if "semantic" in tiers:
        near = each(
            "near",
            near_part,
            [
                (top, embedded, assigned, _top_folder(work, "near", top), levels, config.dedup)
                for top in range(levels.granularities[0])
            ],
        )
        stages["semantic"] = each(
            "semantic",
            drop_near,
            [(near, sources, embedded_verdicts(stages), _folder(work, "semantic"))],
        )
    return Documents(stages, tree, levels)


def store_stages(
    documents: Documents,
    tokenizer: Part,
    work: Folder,
    config: Build,
    each: Each,
    existing: ExistingCatalog | None = None,
) -> Built:
    """Store the documents by leaf, place the targets and describe the domains.

    With an `existing` catalog, the descriptions cover its documents too.
    """
    tree, levels, stages = documents.tree, documents.levels, dict(documents.stages)
    tops = range(levels.granularities[0])

    # The store: documents and their tokens, written once, in the order of the leaves.
    stored: list[list[Part]] = [[] for _ in tops]
    if stages:
        stages["sort"], stored = _sort_by_leaf(stages, tokenizer, levels, work, config, each)
    stages["shard"] = [part for parts in stored for part in parts]

    # The leaves of the targets' documents, and the contents of each domain.
    targets = each(
        "targets",
        target_part,
        [
            (target, tree, tokenizer, _folder(work, "targets", target), config)
            for target in config.all_targets()
        ],
    )
    by_top: list[list[Part]] = [
        [*([existing.stored(top)] if existing else []), *parts]
        for top, parts in zip(tops, stored, strict=True)
    ]
    described = each(
        "describe",
        describe_part,
        [(by_top[top], _top_folder(work, "describe", top), levels) for top in tops],
    )
    everything = [part for parts in by_top for part in parts]
    [description] = each(
        "domains",
        describe_domains,
        [(described, everything, tree, _folder(work, "domains"), config.labels, levels)],
    )

    # Passages of the targets in the corpus. Earlier documents and targets are compared already.
    compared, other = existing.compared_targets() if existing else ([], [])
    calls = [
        (part, [*(compared if part in stored[top] else ()), *other, *targets])
        for top in tops
        for part in by_top[top]
    ]
    leakage = each(
        "leakage",
        leakage_part,
        [(*call, work / "leakage" / f"{number:05d}") for number, call in enumerate(calls)],
    )
    return Built(stages, stored, tree, tokenizer, targets, description, leakage)


def _sort_by_leaf(
    stages: Mapping[str, Sequence[Part]],
    tokenizer: Part,
    levels: Levels,
    work: Folder,
    config: Build,
    each: Each,
) -> tuple[list[Part], list[list[Part]]]:
    """Sort the documents of all parts by leaf, through one file per part and range of leaves.

    Returns:
        The parts of sort, and those of shard by top-level domain.
    """
    sources, judged, assigned = (stages[name] for name in ("source", "quality", "assign"))
    embedded, finals = embedded_verdicts(stages), final_verdicts(stages)
    [ranges] = each(
        "ranges",
        plan_ranges,
        [(sources, embedded, finals, assigned, _folder(work, "ranges"), config.store, levels)],
    )
    rest = (config.store, config.held_out_share)
    runs = each(
        "sort",
        sort_part,
        [
            (*inputs, tokenizer, ranges, _folder(work, "sort", inputs[0]), *rest)
            for inputs in zip(sources, judged, embedded, finals, assigned, strict=True)
        ],
    )
    every_run = list_parts(runs, _folder(work, "runs"))
    wanted = read_ranges(ranges).of_tops(levels)
    merged = iter(
        each(
            "shard",
            shard_part,
            [
                (leaves, every_run, _folder(work, "shard", leaves), config.store)
                for of_top in wanted
                for leaves in of_top
            ],
        )
    )
    return runs, [list(islice(merged, len(of_top))) for of_top in wanted]


@runtime_checkable
class _Named(Protocol):
    @property
    def name(self) -> str: ...


def _folder(work: Folder, stage: str, piece: _Named | None = None) -> Folder:
    return work / stage / (piece.name if piece else "all")


def _top_folder(work: Folder, stage: str, top: int) -> Folder:
    return work / stage / f"{top:04d}"
