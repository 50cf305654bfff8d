"""A synthetic catalog to train on, with as many languages as it has leaves."""

from pathlib import Path

from data_catalog.format.layout import Levels
from tests.helpers.tiny_catalog import Languages, write_tiny_catalog

TARGETS = ("first", "second", "third", "fourth")
# With the distributions of the targets, `natural`, `uniform` and the 16 coarsest domains, there are
# 22 members.
LEVELS = Levels((16, 64))
SIZES = {"cpu": (8, 12, 160), "gpu": (128, 64, 1_040)}  # words, documents per leaf, their tokens


def write_catalog(root: Path, scale: str) -> Path:
    """Write a catalog with 64 leaves, and return its folder."""
    words, documents, tokens = SIZES[scale]
    targets = {name: 5 + 16 * number for number, name in enumerate(TARGETS)}
    languages = Languages(LEVELS, words, targets)
    return write_tiny_catalog(root, (documents,) * LEVELS.leaves, tokens, languages)
