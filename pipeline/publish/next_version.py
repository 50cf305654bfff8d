"""Publish an addition as the next version of its catalog: new files beside the old, tables that speak of both, then the manifest."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.accounts import Account, total
from data_catalog.format.layout import Layout
from data_catalog.format.manifest import AdditionRecord, describe_files
from data_catalog.settings import parse
from pipeline.config import Build
from pipeline.dedup.removed import removed_by_source
from pipeline.parts import Part
from pipeline.publish.accounts import CHAIN, check_chain, check_reachable, read_accounts
from pipeline.publish.existing_catalog import Standing, as_read, copies_in
from pipeline.publish.link_files import place_stored, place_targets, place_verdicts
from pipeline.publish.stage import Tables, commit, read_parts, write_tables
from pipeline.shard.stage import OFFSETS


def publish_next(
    standing: Standing,
    config: Build,
    stages: Mapping[str, Sequence[Part]],
    targets: Sequence[Part],
    description: Part,
    addition: AdditionRecord,
) -> None:
    """Make the new parts (`stages`, `targets`) and the `description` of all documents the version after `standing`.

    `stages` are those of pipeline.publish.accounts.CHAIN, or shard alone if no documents were read. `addition` goes into the manifest.

    Raises:
        AccountingError: a document was lost on the way.
    """
    before, manifest = standing.files.layout, standing.files.manifest
    layout = Layout(before.root, manifest.version + 1)
    accounts = {
        stage: total(part.account for part in stages[stage]) for stage in CHAIN if stage in stages
    }
    accounts = join(read_accounts(pq.read_table(before.accounting)), accounts)
    offsets = pa.concat_tables(
        [standing.offsets(), read_parts(stages["shard"], OFFSETS, tables.OFFSETS)]
    )
    check_chain(accounts)
    check_reachable(offsets, accounts["shard"])
    distributions = pq.read_table(before.distributions, schema=tables.DISTRIBUTIONS)
    distances = distributions.filter(pc.equal(distributions["kind"], "distance"))
    failed = read_parts(
        (*stages.get("source", ()), *targets), "quarantine.parquet", tables.QUARANTINE
    )
    placed = [*place_stored(stages["shard"], layout), *place_targets(targets, layout)]
    measured = standing.data("signals/")
    if "source" in stages:
        read = list(place_verdicts(stages, layout))
        measured += [
            path.relative_to(layout.root).as_posix()
            for path in read
            if path.parent.name == "signals"
        ]
        placed += read
    sources, verdicts = as_read(layout.root, measured, description.folder.parent.with_name("read"))
    content = Tables(
        offsets=offsets,
        accounts=accounts,
        quarantine=pa.concat_tables(
            [pq.read_table(before.quarantine, schema=tables.QUARANTINE), failed]
        ),
        removed=removed_by_source(sources, verdicts),
        distances=pa.concat_tables(
            [distances, read_parts(targets, "distributions.parquet", tables.DISTRIBUTIONS)]
        ),
        targets=[*manifest.targets, *(part.name for part in targets)],
        description=description,
    )
    placed += write_tables(content, standing.levels, layout, config)
    kept = {name: file for name, file in manifest.files.items() if not name.startswith("versions/")}
    about = {
        "warnings": (*manifest.warnings, *_warnings(standing, targets)),
        "built_from": manifest.built_from,
        "parent": manifest.fingerprint,
        "additions": (*manifest.additions, addition),
        "stage_seconds": {
            stage: sum(part.seconds for part in parts)
            for stage, parts in {**stages, "targets": targets}.items()
        },
    }
    base = parse(Build, manifest.config, str(before.manifest))
    commit(
        layout,
        content,
        standing.levels,
        base,
        manifest.tokenizer,
        {**kept, **describe_files(layout.root, placed)},
        about,
    )


def join(before: Mapping[str, Account], new: Mapping[str, Account]) -> dict[str, Account]:
    """The accounts of both, stage by stage; a tier that one of them left out passed on what it was given."""
    if "source" not in new:
        return dict(before)

    def account(side: Mapping[str, Account], stage: str) -> Account:
        return side.get(stage, Account(read=side["assign"].kept, kept=side["assign"].kept))

    return {
        stage: total((account(before, stage), account(new, stage)))
        for stage in CHAIN
        if stage in before or stage in new
    }


def _warnings(standing: Standing, targets: Sequence[Part]) -> list[str]:
    return [
        f"target {name}: {count} of its texts are documents of the corpus too, which was built before the target was known"
        for name, count in copies_in(standing, targets).items()
    ]
