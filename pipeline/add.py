"""The story of an addition: new documents, or new targets, become the next version of a finished catalog.

What is there is not touched: files are only added, and the tables of the earlier version stay, so that it can still be opened.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_catalog.errors import UserError
from data_catalog.format.files import open_files
from data_catalog.format.layout import OPTIONAL, Layout
from data_catalog.format.manifest import AdditionRecord, fingerprint
from data_catalog.settings import parse
from pipeline.cluster.stage import assign_part
from pipeline.config import Addition, Build
from pipeline.dedup.exact import target_digests
from pipeline.dedup.semantic import drop_near, near_part
from pipeline.dedup.signatures import sign_part
from pipeline.dedup.stage import dedup
from pipeline.describe.domains import describe_domains
from pipeline.describe.stage import describe_part
from pipeline.distribution import target_part
from pipeline.embed.identity import identify
from pipeline.embed.stage import embed_part
from pipeline.parts import Part, sole_builder
from pipeline.publish.existing_catalog import Standing
from pipeline.publish.next_version import publish_next
from pipeline.publish.stage import final_verdicts
from pipeline.quality.stage import judge_part
from pipeline.run import Each, one_by_one
from pipeline.shard.stage import shard_part, sort_part
from pipeline.source.documents import Shard
from pipeline.source.stage import plan, read_shard
from pipeline.source.targets import check_targets

log = logging.getLogger(__name__)


def add(root: Path, addition: Addition, each: Each = one_by_one) -> Path:
    """Add documents, targets or both to the catalog at `root` and return `root`; what it holds already is not added again.

    Raises:
        UserError: there is no catalog; its encoder is not at hand; nothing is to be added, or a target of a name that is taken.
    """
    with sole_builder(Layout(root).work):
        files = open_files(root)
        for folder in OPTIONAL:
            files.require(folder)
        standing, manifest = Standing(files), files.manifest
        config, shards = check(standing, addition)
        inputs = (
            [shard.identity() for shard in shards],
            config.all_targets(),
            target_digests(config),
        )
        key = fingerprint("addition", addition.quality, addition.dedup, inputs)
        if any(earlier.fingerprint == key for earlier in manifest.additions):
            log.warning("%s: this was added before, nothing to do", root)
            return root
        if taken := sorted(
            {target.name for target in config.all_targets()} & set(manifest.targets)
        ):
            raise UserError(
                f"target {taken[0]}: {root} has a target of this name; give the new one another"
            )
        stages, targets, description = _stages(
            standing, config, shards, each, Layout(root).work / f"add-{key[:12]}"
        )
        record = AdditionRecord(fingerprint=key, config=addition.model_dump(mode="json"))
        publish_next(standing, config, stages, targets, description, record)
        return root


def check(standing: Standing, addition: Addition) -> tuple[Build, list[Shard]]:
    """The catalog's own config with what is to be added, and the pieces of the new documents; see `add` for the errors."""
    root, manifest = standing.layout.root, standing.manifest
    base = parse(Build, {**manifest.config, "out": str(root)}, str(root / "catalog.json"))
    asked = {
        name: getattr(addition, name) for name in ("quality", "dedup", "targets", "targets_below")
    }
    config = base.model_copy(
        update={**asked, "source": addition.source or base.source, "labels": None}
    )
    if addition.source is None and not config.all_targets():
        raise UserError(
            "nothing to add: expected a source, targets or both; name them in the config"
        )
    check_targets(config)
    here, there = identify(config.embed), manifest.encoder
    if here.comparable != there.comparable:
        raise UserError(
            f"embed.model {config.embed.model}: is now {here.comparable}, {root} was built with {there.comparable}; restore that one"
        )
    return config, plan(config) if addition.source else []


def _stages(
    standing: Standing, config: Build, shards: Sequence[Shard], each: Each, work: Path
) -> tuple[dict[str, Sequence[Part]], list[Part], Part]:
    """The stages of `pipeline.run.build` after the tree, on the new documents; descriptions are of all documents."""
    tree, tokenizer, levels = standing.tree, standing.tokenizer, standing.levels
    tops = range(levels.granularities[0])

    def at(stage: str, part: Any = None) -> Path:
        return work / stage / (part.name if part else "all")

    def top_at(stage: str, top: int) -> Path:
        return work / stage / f"{top:04d}"

    stages: dict[str, Sequence[Part]] = {}
    runs: list[Part] = []
    if shards:
        sources = each(
            "source", read_shard, [(shard, at("source", shard), config) for shard in shards]
        )
        judged = each(
            "quality", judge_part, [(part, at("quality", part), config) for part in sources]
        )
        pairs = list(zip(shards, sources, strict=True))
        near = "minhash" in config.dedup.tiers
        signed = (
            each(
                "sign",
                sign_part,
                [(shard, part, at("sign", part), config) for shard, part in pairs],
            )
            if near
            else []
        )
        known = (standing.known(work / "known"),)
        [unique] = each("dedup", dedup, [(sources, judged, signed, at("dedup"), config, known)])
        embedded = each(
            "embed", embed_part, [(part, unique, at("embed", part), config) for part in sources]
        )
        assigned = each(
            "assign", assign_part, [(part, tree, at("assign", part), config) for part in embedded]
        )
        stages = {
            "source": sources,
            "quality": judged,
            "dedup": [unique],
            "embed": embedded,
            "assign": assigned,
        }
        if "semantic" in config.dedup.tiers:
            close = each(
                "near",
                near_part,
                [(top, embedded, assigned, top_at("near", top), levels) for top in tops],
            )
            stages["semantic"] = each(
                "semantic", drop_near, [(close, sources, unique, at("semantic"), config)]
            )
        final = final_verdicts(stages)
        calls = [
            (s, j, unique, final, a, tokenizer, at("sort", s), config)
            for s, j, a in zip(sources, judged, assigned, strict=True)
        ]
        runs = each("sort", sort_part, calls)
        stages["sort"] = runs
    firsts = [standing.next_part(top) for top in tops]
    stored = each(
        "shard",
        shard_part,
        [(top, runs, top_at("shard", top), config, levels, firsts[top]) for top in tops],
    )
    targets = each(
        "targets",
        target_part,
        [
            (target, tree, tokenizer, at("targets", target), config)
            for target in config.all_targets()
        ],
    )
    earlier = [standing.stored(top, top_at("standing", top)) for top in tops]
    both = list(zip(earlier, stored, strict=True))
    described = each(
        "describe",
        describe_part,
        [(list(both[top]), top_at("describe", top), levels) for top in tops],
    )
    everything = [part for pair in both for part in pair]
    [description] = each(
        "domains", describe_domains, [(described, everything, tree, at("domains"), config, levels)]
    )
    return {**stages, "shard": stored}, targets, description
