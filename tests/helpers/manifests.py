"""Whole manifests for catalogs made by hand."""

import json
from pathlib import Path
from typing import Any

from data_catalog.format.files import CatalogFiles, open_files
from data_catalog.format.layout import Layout
from data_catalog.format.manifest import (
    FORMAT,
    Manifest,
    content_fingerprint,
    describe_files,
    write_json,
)

ENCODER = {
    "model": "toy",
    "sha256": "00",
    "dimension": 8,
    "max_tokens": 256,
    "precision": "float32",
}


def tiny_manifest(**changes: Any) -> dict[str, Any]:
    """Return a valid manifest of an empty catalog as JSON values, with `changes` applied."""
    return {
        "format": FORMAT,
        "version": 1,
        "fingerprint": "feed",
        "granularities": [2, 4],
        "documents": 0,
        "tokens": 0,
        "encoder": ENCODER,
        "tokenizer": {"vocabulary": 64, "end_of_text": 0, "sha256": "00"},
        "targets": [],
        "files": {},
        "config": {},
        "built_from": "f00d",
        "parent": None,
        "additions": [],
        "warnings": [],
        "stage_seconds": {},
        **changes,
    }


def write_manifest(root: Path, **changes: Any) -> Path:
    """Write `catalog.json` into `root`, and return `root`."""
    write_json(root / "catalog.json", tiny_manifest(**changes))
    return root


def tiny_files(root: Path, **changes: Any) -> CatalogFiles:
    """Return the open files of a catalog in `root` that has no `catalog.json`."""
    content = {
        name: tuple(v) if isinstance(v, list) else v for name, v in tiny_manifest(**changes).items()
    }
    manifest = Manifest.model_validate(content)
    return CatalogFiles(Layout(root, manifest.version), manifest)


def accept_files(root: Path, *paths: Path) -> None:
    """Write the manifests again with the current sizes and checksums of these files."""
    files = open_files(root)
    manifest = files.manifest
    entries = {**manifest.files, **describe_files(root, list(paths))}
    changed = manifest.model_copy(update={"files": dict(sorted(entries.items()))})
    changed = changed.model_copy(update={"fingerprint": content_fingerprint(changed.content())})
    for place in (files.layout.version_manifest, files.layout.manifest):
        write_json(place, changed.content())


def change_manifest(root: Path, **changes: Any) -> dict[str, Any]:
    """Change keys of `catalog.json` in `root` and return what it then holds."""
    path = root / "catalog.json"
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    write_json(path, content)
    return content
