"""The last stage: put the parts' results in their final places, check that nothing was lost, write the manifest."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog import tables
from data_catalog.database import write_database
from data_catalog.errors import AccountingError
from data_catalog.layout import Layout, Levels
from data_catalog.manifest import FORMAT, describe_files, fingerprint, sha256_file, write_json
from data_catalog.records import Account, Tally, total
from pipeline.config import Build
from pipeline.distribution import corpus_distributions
from pipeline.encoder import identify
from pipeline.parts import Part
from pipeline.tokenize import end_of_text, vocabulary

CHAIN = ("source", "quality", "dedup", "embed", "assign", "sort", "shard")  # each reads what the one before kept


@dataclass(frozen=True)
class Built:
    """The finished parts of a build, by stage."""

    stages: Mapping[str, Sequence[Part]]  # the stages of CHAIN
    tree: Part
    tokenizer: Part
    targets: Sequence[Part]
    description: Part


def publish(built: Built, levels: Levels, config: Build) -> Path:
    """Make `config.out` a catalog and return its path; the manifest is written last, so a killed build leaves none.

    Raises:
        AccountingError: a stage read another number of documents than the one before it kept.
    """
    layout = Layout(config.out)
    accounts = {stage: total(part.account for part in built.stages[stage]) for stage in CHAIN}
    check_chain(accounts)
    layout.manifest.unlink(missing_ok=True)
    for name in ("documents", "tokens", "targets", "tokenizer", "quarantine"):
        shutil.rmtree(layout.root / name, ignore_errors=True)
    _place_files(built, layout)
    _write_tables(built, levels, layout, accounts)
    write_database(layout.root)
    write_json(layout.manifest, _manifest(built, levels, config, layout, accounts))
    return layout.root


def check_chain(accounts: Mapping[str, Account]) -> None:
    """Every stage reads exactly what the one before it kept, in rows and characters; see `publish`."""
    for before, after in pairwise(CHAIN):
        if accounts[before].kept != accounts[after].read:
            raise AccountingError(f"{before} kept {accounts[before].kept} but {after} read {accounts[after].read}")


def _place_files(built: Built, layout: Layout) -> None:
    for top, part in enumerate(built.stages["shard"]):
        _link(part.folder / "documents.parquet", layout.documents(top))
        _link(part.folder / "tokens.arrow", layout.tokens(top))
    for part in built.targets:
        for name in ("documents.parquet", "tokens.arrow", "target.json"):
            _link(part.folder / name, layout.target(part.name) / name)
    for file in built.tokenizer.folder.iterdir():
        if file.name != "part.json":
            _link(file, layout.tokenizer / file.name)
    _link(built.tree.folder / "centroids.npz", layout.centroids)
    _link(built.description.folder / "domains.parquet", layout.domains)


def _link(source: Path, place: Path) -> None:
    """A hard link where the file system has them: the work folder then costs no second copy."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    try:
        os.link(source, place)
    except OSError:
        shutil.copy2(source, place)


def _write_tables(built: Built, levels: Levels, layout: Layout, accounts: Mapping[str, Account]) -> None:
    offsets = pa.concat_tables([pq.read_table(part.folder / "offsets.parquet") for part in built.stages["shard"]])
    pq.write_table(offsets, layout.offsets, compression="zstd")
    train = offsets.filter(pa.compute.equal(offsets["split"], "train"))
    tokens = np.zeros(levels.leaves, np.int64)
    tokens[train["leaf"].to_numpy()] = train["tokens"].to_numpy()
    distributions = [pq.read_table(part.folder / "distributions.parquet") for part in built.targets]
    pq.write_table(pa.concat_tables([corpus_distributions(levels, tokens), *distributions]), layout.distributions, compression="zstd")
    pq.write_table(accounting_table(accounts), layout.accounting)
    layout.quarantine.parent.mkdir(parents=True)
    failed = [pq.read_table(part.folder / "quarantine.parquet") for part in (*built.stages["source"], *built.targets)]
    pq.write_table(pa.concat_tables(failed), layout.quarantine, compression="zstd")


def accounting_table(accounts: Mapping[str, Account]) -> pa.Table:
    """One row a stage and outcome (tables.ACCOUNTING)."""
    rows = []
    for stage, account in accounts.items():
        amounts: list[tuple[str, str | None, Tally]] = [("read", None, account.read), ("kept", None, account.kept)]
        amounts += [("dropped", reason, tally) for reason, tally in sorted(account.dropped.items())]
        amounts += [("failed", reason, tally) for reason, tally in sorted(account.failed.items())]
        rows += [{"stage": stage, "outcome": outcome, "reason": reason, **tally.model_dump()} for outcome, reason, tally in amounts]
    return pa.Table.from_pylist(rows, tables.ACCOUNTING)


def _manifest(built: Built, levels: Levels, config: Build, layout: Layout, accounts: Mapping[str, Account]) -> dict[str, Any]:
    tokenizer = {
        "vocabulary": vocabulary(built.tokenizer),
        "end_of_text": end_of_text(layout.tokenizer),
        "sha256": sha256_file(layout.tokenizer / "tokenizer.json"),
    }
    content = {
        "format": FORMAT,
        "granularities": levels.granularities,
        "encoder": identify(config.embed),
        "tokenizer": tokenizer,
        "targets": [part.name for part in built.targets],
        "files": describe_files(layout.root, layout.result_files()),
    }
    tree = json.loads((built.tree.folder / "tree.json").read_text(encoding="utf-8"))
    lone = {"tree": [built.tree], "tokenizer": [built.tokenizer], "targets": built.targets, "describe": [built.description]}
    seconds = {stage: sum(part.seconds for part in parts) for stage, parts in {**built.stages, **lone}.items()}
    return {
        **content,
        "fingerprint": fingerprint(content),
        "warnings": tree["warnings"],
        "documents": accounts["shard"].kept.rows,
        "stage_seconds": seconds,  # summed over parts, waiting for each other included: not part of the fingerprint
        "config": config,
    }
