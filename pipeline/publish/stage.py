"""Put the parts' files in their places, check that nothing was lost, and write the manifest."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.errors import UserError
from data_catalog.format import tables
from data_catalog.format.accounts import Account, total
from data_catalog.format.layout import Layout, Levels
from data_catalog.format.manifest import (
    FORMAT,
    FileIdentity,
    Manifest,
    TokenizerIdentity,
    content_fingerprint,
    fingerprint,
    identify_file,
    read_manifest,
    sha256_file,
    write_json,
)
from data_catalog.query.shell_files import write_database
from data_catalog.temporary import remove
from pipeline.config import Build, Distributions
from pipeline.dedup.removed import removed_by_source
from pipeline.describe.domains import HEALTH_FILE
from pipeline.describe.leakage import SHARED, SHARED_FILE, leakage_table
from pipeline.distribution import all_distributions, target_table
from pipeline.embed.identity import identify
from pipeline.parts import Part
from pipeline.publish.accounts import (
    CHAIN,
    accounting_table,
    check_chain,
    check_reachable,
    with_notes,
)
from pipeline.publish.link_files import (
    PlacedFile,
    StoredPart,
    move_into_place,
    number_files,
    place_all,
    place_stored,
    place_targets,
    place_verdicts,
    placed_names,
    stored_offsets,
)
from pipeline.publish.warnings import (
    column_warnings,
    damage_warnings,
    document_warnings,
    label_warnings,
    leakage_warnings,
)
from pipeline.shard.tokenize import end_of_text, vocabulary_size
from pipeline.source.documents import Fault
from pipeline.source.stage import QUARANTINE_FILE, quarantine_table
from pipeline.source.targets import skipped_targets
from pipeline.verdicts import final_verdicts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Built:
    """The finished parts of a build or an addition."""

    stages: Mapping[str, Sequence[Part]]  # by stage of `pipeline.publish.accounts.CHAIN`
    stored: Sequence[Sequence[Part]]  # parts of shard, by top-level domain, in order of leaves
    tree: Part
    tokenizer: Part
    targets: Sequence[Part]
    description: Part
    leakage: Sequence[Part]

    def accounts(self) -> dict[str, Account]:
        return {
            stage: total(part.account for part in self.stages[stage])
            for stage in CHAIN
            if stage in self.stages
        }

    def all_accounts(self) -> Iterator[Account]:
        """Yield the accounts of all stages and of the targets."""
        yield from self.accounts().values()
        yield from (part.account for part in self.targets)

    def fingerprint(self) -> str:
        """Return the fingerprint of all parts but those of leakage, a report on the others."""
        return fingerprint(
            {stage: [part.fingerprint for part in parts] for stage, parts in self._all().items()}
        )

    def seconds(self) -> dict[str, float]:
        """Return each stage's time in seconds, summed over its parts, waiting included."""
        stages = {**self._all(), "leakage": self.leakage}
        return {stage: sum(part.seconds for part in parts) for stage, parts in stages.items()}

    def _all(self) -> dict[str, Sequence[Part]]:
        return {
            **self.stages,
            "tree": [self.tree],
            "tokenizer": [self.tokenizer],
            "targets": self.targets,
            "describe": [self.description],
        }


@dataclass(frozen=True)
class VersionTables:
    """Tables on all documents of a version, including those of earlier versions."""

    offsets: pa.Table
    accounts: Mapping[str, Account]
    quarantine: pa.Table
    removed: pa.Table
    distances: pa.Table  # rows of tables.DISTRIBUTIONS of kind `distance`, for every target
    targets: Sequence[str]
    shared: pa.Table  # rows of pipeline.describe.leakage.SHARED, for every target
    description: Part


def publish(built: Built, levels: Levels, config: Build, unread: Sequence[Fault] = ()) -> Path:
    """Make `config.out` a catalog and return its path.

    The catalog is written beside an earlier one in `config.out`, which is replaced only when all
    files are there. The manifest comes last, so a killed build leaves none.

    Args:
        built: The finished parts.
        levels: Levels of the tree.
        config: The build.
        unread: Notes on files of the corpus that were not read.

    Raises:
        AccountingError: A stage did not read what the stage before it kept.
        UserError: The catalog there has additions, which this build would lose.
    """
    layout = Layout(config.out, 1)
    accounts = with_notes(built.accounts(), unread)
    check_chain(accounts)
    stored = number_files(built.stored, [0] * len(built.stored))
    offsets = stored_offsets(stored)
    check_reachable(offsets, accounts["shard"])
    if _has_grown(layout.root, built.fingerprint()):
        return layout.root
    staged = layout.work / "publish"
    remove(staged)
    try:
        _write(built, stored, levels, config, unread, accounts, offsets, Layout(staged, 1))
        move_into_place(Layout(staged, 1), layout)
    except BaseException:
        with suppress(OSError):  # The first error says more.
            remove(staged)
        raise
    remove(staged)
    return layout.root


def _write(
    built: Built,
    stored: Sequence[StoredPart],
    levels: Levels,
    config: Build,
    unread: Sequence[Fault],
    accounts: Mapping[str, Account],
    offsets: pa.Table,
    layout: Layout,
) -> None:
    """Write the catalog to the folder of `layout`, which is empty."""
    verdicts = final_verdicts(built.stages)
    placed = [
        *place_stored(stored, layout),
        *place_verdicts(built.stages["quality"], verdicts, layout),
        *place_targets(built.targets, layout),
        *place_all(built.tree, layout.tree),
        *place_all(built.tokenizer, layout.tokenizer),
    ]
    content = VersionTables(
        offsets=offsets,
        accounts=accounts,
        quarantine=all_faults(built, unread, config),
        removed=removed_by_source(built.stages["source"], verdicts),
        distances=read_parts(built.targets, "distributions.parquet", tables.DISTRIBUTIONS),
        targets=[part.name for part in built.targets],
        shared=read_parts(built.leakage, SHARED_FILE, SHARED),
        description=built.description,
    )
    placed += write_tables(content, levels, layout, config.distributions)
    tree = json.loads((layout.tree / "tree.json").read_text(encoding="utf-8"))
    tokenizer = TokenizerIdentity(
        vocabulary=vocabulary_size(built.tokenizer),
        end_of_text=end_of_text(built.tokenizer.folder),
        sha256=sha256_file(layout.tokenizer / "tokenizer.json"),
    )
    about: dict[str, Any] = {
        "warnings": (
            *damage_warnings(content.quarantine, built.all_accounts()),
            *document_warnings(accounts),
            *column_warnings(accounts, config.source),
            *label_warnings(pq.read_table(layout.tables / HEALTH_FILE), config.labels),
            *leakage_warnings(pq.read_table(layout.leakage)),
            *tree["warnings"],
        ),
        "built_from": built.fingerprint(),
        "parent": None,
        "additions": (),
        "stage_seconds": built.seconds(),
    }
    commit(layout, content, levels, config, tokenizer, placed_names(placed, layout.root), about)


def all_faults(built: Built, unread: Sequence[Fault], config: Build) -> pa.Table:
    """Return the faults and notes of all stages and of the targets (tables.QUARANTINE)."""
    stages = built.stages
    parts = [part for name in ("source", "embed", "sort") for part in stages.get(name, ())]
    quarantined = [
        part for part in (*parts, *built.targets) if (part.folder / QUARANTINE_FILE).is_file()
    ]
    return pa.concat_tables(
        [
            quarantine_table(unread),
            read_parts(quarantined, QUARANTINE_FILE, tables.QUARANTINE),
            quarantine_table(skipped_targets(config), "targets"),
        ]
    )


def read_parts(parts: Sequence[Part], name: str, schema: pa.Schema) -> pa.Table:
    """Return the files `name` of all parts as one table."""
    return pa.concat_tables(
        [
            schema.empty_table(),
            *(pq.read_table(part.folder / name, schema=schema) for part in parts),
        ]
    )


def _has_grown(root: Path, built_from: str) -> bool:
    """Return whether the catalog at `root` is this build with additions.

    Raises:
        UserError: It is another build with additions, which must not be overwritten.
    """
    try:
        grown = read_manifest(root).version > 1
        same = grown and read_manifest(root, 1).built_from == built_from
    except UserError:
        return False  # there is no finished catalog
    if grown and not same:
        raise UserError(
            f"out {root}: the catalog there has additions, which a new build would lose. "
            "Set another `out`, or remove the catalog."
        )
    if grown:
        logger.warning(
            "%s: already built with this config, and has additions since. Nothing to do.", root
        )
    return grown


def write_tables(
    content: VersionTables, levels: Levels, layout: Layout, config: Distributions
) -> list[PlacedFile]:
    """Write a version's tables and return their paths, sizes and checksums."""
    places = list(place_all(content.description, layout.tables))
    train = content.offsets.filter(pc.equal(content.offsets["split"], "train"))
    tokens = np.zeros(levels.leaves, np.int64)
    np.add.at(tokens, train["leaf"].to_numpy(), train["tokens"].to_numpy())
    documents = {
        name: pq.read_table(layout.target(name) / "documents.parquet", schema=tables.TARGET)
        for name in content.targets
    }
    distributions = all_distributions(documents, content.distances, tokens, levels, config)
    written = {
        layout.offsets: content.offsets.sort_by(tables.OFFSETS_ORDER),
        layout.distributions: distributions,
        layout.targets: target_table(
            documents, distributions, pq.read_table(layout.domains), levels
        ),
        layout.leakage: leakage_table(documents, content.shared),
        layout.accounting: accounting_table(content.accounts),
        layout.removed: content.removed,
        layout.quarantine: content.quarantine,
    }
    for place, table in written.items():
        pq.write_table(table, place, compression="zstd")
    return [*places, *((place, identify_file(place)) for place in written)]


def commit(
    layout: Layout,
    content: VersionTables,
    levels: Levels,
    config: Build,
    tokenizer: TokenizerIdentity,
    files: Mapping[str, FileIdentity],
    about: Mapping[str, Any],
) -> None:
    """Write the version's manifest, then make it the catalog's by one rename.

    Nobody sees the version before that rename.
    """
    same: dict[str, Any] = {
        "format": FORMAT,
        "version": layout.version,
        "granularities": levels.granularities,
        "encoder": identify(config.embed),
        "tokenizer": tokenizer,
        "targets": tuple(content.targets),
        "files": dict(sorted(files.items())),
    }
    documents = content.accounts["shard"].kept
    manifest = Manifest(
        **same,
        **about,
        fingerprint=content_fingerprint(same),
        documents=documents.rows,
        tokens=documents.tokens,
        config=config.model_dump(mode="json"),
    )
    write_json(layout.version_manifest, manifest.content())
    write_database(layout.root, manifest)
    write_json(layout.manifest, manifest.content())
