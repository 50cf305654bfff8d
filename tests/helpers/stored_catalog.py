"""A tiny catalog with a whole manifest, as it is exported to a store."""

from pathlib import Path

from data_catalog.format.manifest import read_manifest, write_json
from tests.helpers.manifests import accept_files
from tests.helpers.tiny_catalog import DOCUMENTS, write_tiny_catalog


def write_whole_catalog(
    root: Path, documents: tuple[int, ...] = DOCUMENTS, document_tokens: int = 24
) -> Path:
    write_tiny_catalog(root, documents, document_tokens)
    write_json(root / "versions" / "0001" / "catalog.json", read_manifest(root).content())
    files = [path for path in root.rglob("*") if path.is_file() and path.name != "catalog.json"]
    accept_files(root, *files)
    return root
