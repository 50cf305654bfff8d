"""Put the parts' files in their places, check that nothing was lost, and write the manifest."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.errors import UserError
from data_catalog.format import tables
from data_catalog.format.accounts import Account, total
from data_catalog.format.file_cache import keeping_used_files, scratch_folder
from data_catalog.format.layout import Layout, Levels
from data_catalog.format.manifest import (
    Manifest,
    TokenizerIdentity,
    fingerprint,
    identify_file,
    read_manifest,
    sha256_file,
)
from data_catalog.lease import Lease
from data_catalog.place import Folder, Place
from data_catalog.temporary import remove
from pipeline.config import Build, Distributions
from pipeline.dedup.removed import removed_by_source
from pipeline.describe.domains import HEALTH_FILE
from pipeline.describe.leakage import SHARED, SHARED_FILE, leakage_table
from pipeline.distribution import all_distributions, target_table
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
from pipeline.publish.put_files import put_version
from pipeline.publish.version import commit, describe_version
from pipeline.publish.warnings import (
    column_warnings,
    damage_warnings,
    document_warnings,
    label_warnings,
    leakage_warnings,
)
from pipeline.shard.tokenize import end_of_text, vocabulary_size
from pipeline.source.documents import Fault
from pipeline.source.stage import DOCUMENTS_FILE, QUARANTINE_FILE, quarantine_table
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
    targets: Sequence[Part]
    shared: pa.Table  # rows of pipeline.describe.leakage.SHARED, for every target
    description: Part


def publish(
    built: Built,
    levels: Levels,
    config: Build,
    unread: Sequence[Fault] = (),
    lease: Lease | None = None,
) -> Folder:
    """Make `config.out` a catalog and return its folder.

    The catalog is written beside an earlier one in `config.out`, which is replaced only when all
    files are there. The manifest comes last, so a killed build leaves none.

    Args:
        built: The finished parts.
        levels: Levels of the tree.
        config: The build.
        unread: Notes on files of the corpus that were not read.
        lease: The lease of a folder in a store.

    Raises:
        AccountingError: A stage did not read what the stage before it kept.
        UserError: The catalog there has additions, which this build would lose, or the lease was
            lost.
    """
    out = config.out
    accounts = with_notes(built.accounts(), unread)
    check_chain(accounts)
    stored = number_files(built.stored, [0] * len(built.stored))
    offsets = stored_offsets(stored)
    check_reachable(offsets, accounts["shard"])
    if _has_grown(out, built.fingerprint()):
        return out

    def write(layout: Layout) -> tuple[list[PlacedFile], Manifest]:
        return _write(built, stored, levels, config, unread, accounts, offsets, layout)

    if isinstance(out, Place):
        with keeping_used_files(), scratch_folder("publish") as folder:
            put_version(*write(Layout(folder, 1)), folder, out, lease)
        return out
    staged = Layout(out).work / "publish"
    remove(staged)
    try:
        _, manifest = write(Layout(staged, 1))
        commit(Layout(staged, 1), manifest)
        move_into_place(Layout(staged, 1), Layout(out, 1))
    except BaseException:
        with suppress(OSError):  # The first error says more.
            remove(staged)
        raise
    remove(staged)
    return out


def _write(
    built: Built,
    stored: Sequence[StoredPart],
    levels: Levels,
    config: Build,
    unread: Sequence[Fault],
    accounts: Mapping[str, Account],
    offsets: pa.Table,
    layout: Layout,
) -> tuple[list[PlacedFile], Manifest]:
    """Write the catalog's files to the folder of `layout`, which is empty.

    Returns:
        The files, and the manifest, which is not written.
    """
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
        targets=built.targets,
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
    names = placed_names(placed, layout.root)
    return placed, describe_version(
        layout,
        accounts["shard"].kept,
        [part.name for part in content.targets],
        levels,
        config,
        tokenizer,
        names,
        about,
    )


def all_faults(built: Built, unread: Sequence[Fault], config: Build) -> pa.Table:
    """Return the faults and notes of all stages and of the targets (tables.QUARANTINE)."""
    stages = built.stages
    parts = [part for name in ("source", "embed", "sort") for part in stages.get(name, ())]
    quarantined = [part for part in (*parts, *built.targets) if part.has(QUARANTINE_FILE)]
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
            *(pq.read_table(part.file(name), schema=schema) for part in parts),
        ]
    )


def _has_grown(root: Folder, built_from: str) -> bool:
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
        part.name: pq.read_table(part.file(DOCUMENTS_FILE), schema=tables.TARGET)
        for part in content.targets
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
    return [*places, *(PlacedFile(place, identify_file(place)) for place in written)]
