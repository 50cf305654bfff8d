"""The manifest of a version of a catalog, and the rename that makes the version the newest."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_catalog.format.accounts import Tally
from data_catalog.format.layout import Layout, Levels
from data_catalog.format.manifest import (
    FORMAT,
    FileIdentity,
    Manifest,
    TokenizerIdentity,
    content_fingerprint,
    write_json,
)
from data_catalog.query.shell_files import write_database
from pipeline.config import Build
from pipeline.embed.identity import identify


def describe_version(
    layout: Layout,
    documents: Tally,
    targets: Sequence[str],
    levels: Levels,
    config: Build,
    tokenizer: TokenizerIdentity,
    files: Mapping[str, FileIdentity],
    about: Mapping[str, Any],
) -> Manifest:
    """Return the manifest of a version.

    Args:
        layout: The version.
        documents: What it stores, those of earlier versions included.
        targets: Names of its targets, likewise.
        levels: Levels of its tree.
        config: The build.
        tokenizer: The tokenizer.
        files: All its files, keyed by their path below the catalog.
        about: The manifest's other keys.
    """
    same: dict[str, Any] = {
        "format": FORMAT,
        "version": layout.version,
        "granularities": levels.granularities,
        "encoder": identify(config.embed),
        "tokenizer": tokenizer,
        "targets": tuple(targets),
        "files": dict(sorted(files.items())),
    }
    return Manifest(
        **same,
        **about,
        fingerprint=content_fingerprint(same),
        documents=documents.rows,
        tokens=documents.tokens,
        config=config.model_dump(mode="json"),
    )


def commit(layout: Layout, manifest: Manifest) -> None:
    """Write the version's manifest, then make it the catalog's by one rename.

    Nobody sees the version before that rename.
    """
    write_json(layout.version_manifest, manifest.content())
    write_database(layout.root, manifest)
    write_json(layout.manifest, manifest.content())
