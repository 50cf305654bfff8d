"""Paths of this checkout and of the shared corpus beside it."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
CORPUS = ROOT.parent / "shared" / "corpus"
