"""Publish an addition as the next version of its catalog.

New files go beside the old ones, new tables cover both, and the manifest is written last.
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.accounts import Account, total
from data_catalog.format.damage import reading
from data_catalog.format.distributions import read_distributions
from data_catalog.format.file_cache import keeping_used_files, scratch_folder
from data_catalog.format.layout import MANIFEST, Layout
from data_catalog.format.manifest import AdditionRecord, Manifest
from data_catalog.lease import Lease
from data_catalog.place import Place
from data_catalog.settings import parse
from pipeline.config import Build
from pipeline.dedup.removed import removed_by_source
from pipeline.describe.leakage import SHARED, SHARED_FILE
from pipeline.parts import Part
from pipeline.publish.accounts import (
    CHAIN,
    check_chain,
    check_reachable,
    read_accounts,
    with_notes,
)
from pipeline.publish.existing_catalog import ExistingCatalog, as_read, copies_in
from pipeline.publish.link_files import (
    PlacedFile,
    number_files,
    place_stored,
    place_targets,
    place_verdicts,
    placed_names,
    stored_offsets,
)
from pipeline.publish.put_files import put_version
from pipeline.publish.stage import (
    Built,
    VersionTables,
    all_faults,
    read_parts,
    write_tables,
)
from pipeline.publish.version import commit, describe_version
from pipeline.publish.warnings import (
    column_warnings,
    damage_warnings,
    document_warnings,
    leakage_warnings,
)
from pipeline.source.documents import Fault
from pipeline.verdicts import final_verdicts


def publish_next(
    existing: ExistingCatalog,
    built: Built,
    config: Build,
    unread: Sequence[Fault],
    addition: AdditionRecord,
    lease: Lease | None = None,
) -> None:
    """Make the parts of an addition the version after `existing`.

    Nothing that is there is changed but the newest manifest, which comes last.

    Args:
        existing: The version that the addition was made for.
        built: The addition's parts. If no documents were read, shard is its only stage. Its
            description covers the documents of both.
        config: The catalog's config with the addition's source.
        unread: Notes on files of the addition that were not read.
        addition: The addition's entry in the manifest.
        lease: The lease of a folder in a store.

    Raises:
        AccountingError: A document was lost on the way.
        UserError: The lease was lost.
    """
    root, number = existing.files.address, existing.manifest.version + 1

    def write(layout: Layout) -> tuple[list[PlacedFile], Manifest]:
        return _write(existing, built, config, unread, addition, layout)

    if isinstance(root, Place):
        with keeping_used_files(), scratch_folder("publish") as folder:
            put_version(*write(Layout(folder, number)), folder, root, lease)
        return
    layout = Layout(root, number)
    commit(layout, write(layout)[1])


def _write(
    existing: ExistingCatalog,
    built: Built,
    config: Build,
    unread: Sequence[Fault],
    addition: AdditionRecord,
    layout: Layout,
) -> tuple[list[PlacedFile], Manifest]:
    """Write the version's new files to the folder of `layout`.

    Returns:
        The files, and the manifest, which is not written.
    """
    before, manifest, stages = existing.layout, existing.manifest, built.stages
    own = with_notes(built.accounts(), unread)
    account_table = existing.files.read_table(before.accounting, tables.ACCOUNTING)
    accounts = join_accounts(read_accounts(account_table), own)
    tops = range(len(built.stored))
    stored = number_files(built.stored, [existing.next_number(top) for top in tops])
    offsets = pa.concat_tables([existing.offsets(), stored_offsets(stored)])
    check_chain(accounts)
    check_reachable(offsets, accounts["shard"])
    placed = [*place_stored(stored, layout), *place_targets(built.targets, layout)]
    measured = existing.measured()
    if "source" in stages:
        for file in place_verdicts(stages["quality"], final_verdicts(stages), layout):
            measured[file.path.relative_to(layout.root).as_posix()] = file.standing
            placed.append(file)
    faults = all_faults(built, unread, config)
    sources, verdicts = as_read(existing.files.address, measured)
    content = VersionTables(
        offsets=offsets,
        accounts=accounts,
        quarantine=pa.concat_tables([_quarantine(existing), faults]),
        removed=removed_by_source(sources, verdicts),
        distances=pa.concat_tables(
            [
                _distances(existing),
                read_parts(built.targets, "distributions.parquet", tables.DISTRIBUTIONS),
            ]
        ),
        targets=[*existing.targets(), *built.targets],
        shared=pa.concat_tables(
            [
                existing.leakage().select(SHARED.names),
                read_parts(built.leakage, SHARED_FILE, SHARED),
            ]
        ),
        description=built.description,
    )
    placed += write_tables(content, existing.levels, layout, config.distributions)
    kept = {name: file for name, file in manifest.files.items() if not name.startswith("versions/")}
    about = {
        "warnings": (
            *manifest.warnings,
            *damage_warnings(faults, built.all_accounts()),
            *document_warnings(own),
            *column_warnings(own, config.source),
            *(
                warning
                for warning in leakage_warnings(pq.read_table(layout.leakage))
                if warning not in manifest.warnings
            ),
            *_warnings(existing, built.targets),
        ),
        "built_from": manifest.built_from,
        "parent": manifest.fingerprint,
        "additions": (*manifest.additions, addition),
        "stage_seconds": {
            stage: sum(part.seconds for part in parts)
            for stage, parts in {
                **stages,
                "targets": built.targets,
                "leakage": built.leakage,
            }.items()
        },
    }
    return placed, describe_version(
        layout,
        accounts["shard"].kept,
        [part.name for part in content.targets],
        existing.levels,
        parse(Build, manifest.config, str(existing.files.address / MANIFEST)),
        manifest.tokenizer,
        {**kept, **placed_names(placed, layout.root)},
        about,
    )


def join_accounts(before: Mapping[str, Account], new: Mapping[str, Account]) -> dict[str, Account]:
    """Add the accounts of two builds, stage by stage.

    If only one of them ran a tier, the other is taken to have kept all that it read there.
    """
    if "source" not in new:
        return dict(before)

    def account(accounts: Mapping[str, Account], stage: str) -> Account:
        assigned = accounts["assign"].kept
        return accounts.get(stage, Account(read=assigned, kept=assigned))

    return {
        stage: total((account(before, stage), account(new, stage)))
        for stage in CHAIN
        if stage in before or stage in new
    }


def _quarantine(existing: ExistingCatalog) -> pa.Table:
    """Return the earlier faults. Columns that an older catalog lacks are null."""
    path = existing.layout.quarantine
    existing.files.compare(path)
    with reading(path):
        return pq.read_table(path, schema=tables.QUARANTINE)


def _distances(existing: ExistingCatalog) -> pa.Table:
    distributions = read_distributions(existing.files)
    return distributions.filter(pc.equal(distributions["kind"], "distance"))


def _warnings(existing: ExistingCatalog, targets: Sequence[Part]) -> list[str]:
    return [
        f"target {name}: {count} of its texts are also documents of the corpus. "
        "The corpus was built before this target was known."
        for name, count in copies_in(existing, targets).items()
    ]
