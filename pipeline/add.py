"""The story of an addition: new documents or targets become the next version of a catalog.

The stages are those of `pipeline/run.py`. Finished files are never changed: files are only added,
and the tables of the earlier version stay, so that it can still be opened.
"""

import logging
from typing import Any

from data_catalog.errors import UserError
from data_catalog.format.files import open_files
from data_catalog.format.layout import MANIFEST, OPTIONAL, WORK
from data_catalog.format.manifest import AdditionRecord, fingerprint
from data_catalog.place import Folder
from data_catalog.settings import parse
from pipeline.config import Addition, Build
from pipeline.dedup.targets import target_texts
from pipeline.embed.encoder import check_encoder
from pipeline.parts import sole_builder
from pipeline.publish.existing_catalog import ExistingCatalog
from pipeline.publish.next_version import publish_next
from pipeline.run import (
    Documents,
    Each,
    check_corpus,
    document_stages,
    one_by_one,
    store_stages,
)
from pipeline.source.documents import Inventory
from pipeline.source.targets import check_targets

logger = logging.getLogger(__name__)


def add(root: Folder, addition: Addition, each: Each = one_by_one) -> Folder:
    """Add documents, targets or both to the catalog at `root` and return `root`.

    Documents that the catalog already holds are not added again.

    Raises:
        DamagedFileError: A file of the catalog is missing, or its checksum differs.
        UserError: There is no catalog, its encoder is not available, there is nothing to add, or
            the name of a target is taken.
    """
    with sole_builder(root / WORK) as lease:
        existing, config, inventory = check_addition(root, addition)
        shards = inventory.shards
        targets = config.all_targets()
        inputs = ([shard.identity() for shard in shards], targets, [*target_texts(config)])
        dedup = _settings(addition)["dedup"]
        key = fingerprint("addition", addition.quality, dedup, inputs)
        if any(earlier.fingerprint == key for earlier in existing.manifest.additions):
            logger.warning("%s: this addition is already in the catalog. Nothing to do.", root)
            return root
        _check_names(existing, config)
        existing.check()
        work = root / WORK / f"add-{key[:12]}"
        documents = (
            document_stages(shards, work, config, each, existing)
            if shards
            else Documents({}, existing.tree, existing.levels)
        )
        built = store_stages(documents, existing.tokenizer, work, config, each, existing)
        record = AdditionRecord(fingerprint=key, config=addition.model_dump(mode="json"))
        publish_next(existing, built, config, inventory.unread, record, lease)
        return root


def check_addition(root: Folder, addition: Addition) -> tuple[ExistingCatalog, Build, Inventory]:
    """Check an addition before any work starts. Nothing is written.

    Returns:
        The catalog, its own config with the addition's keys, and what there is to read.

    Raises:
        UserError: The addition is invalid, see `add`.
    """
    files = open_files(root)
    for folder in OPTIONAL:
        files.require(folder)
    existing, manifest = ExistingCatalog(files), files.manifest
    base = parse(Build, {**manifest.config, "out": str(root)}, str(root / MANIFEST))
    changes = {
        name: getattr(addition, name) for name in ("quality", "dedup", "targets", "targets_below")
    }
    config = base.model_copy(
        update={**changes, "source": addition.source or base.source, "labels": None}
    )
    if addition.source is None and not config.all_targets():
        raise UserError(
            "source, targets: nothing to add. Expected a source, targets or both. "
            "Name them in the config."
        )
    check_targets(config)
    available, expected = check_encoder(config.embed).comparable, manifest.encoder.comparable
    if available != expected:
        raise UserError(
            f"embed.model {config.embed.model}: the encoder found here is {available}, but {root} "
            f"was built with {expected}. Restore that encoder."
        )
    place = str(root / MANIFEST)  # today's settings have keys that older records lack
    earlier = [_settings(parse(Addition, known.config, place)) for known in manifest.additions]
    if _settings(addition) not in earlier:
        _check_names(existing, config)
    inventory = check_corpus(config) if addition.source else Inventory([])
    return existing, config, inventory


def _settings(addition: Addition) -> dict[str, Any]:
    """Return the settings of an addition that change its result."""
    return addition.model_dump(mode="json", exclude={"dedup": {"memory_megabytes"}})


def _check_names(existing: ExistingCatalog, config: Build) -> None:
    targets = {target.name for target in config.all_targets()}
    if taken := sorted(targets & set(existing.manifest.targets)):
        raise UserError(
            f"target {taken[0]}: {existing.files.address} already has a target of this name. "
            "Give the new target another name."
        )
