"""Compare all backends and precisions of the encoder on the same documents.

The results are documents per second, the cosine to torch in float32, and the effect on clusters.
All backends run in turns in one process, so that a noisy machine slows all alike. "Same cell" is
the share of documents whose nearest cell in the tree of a catalog is the same as in float32.
"""

import argparse
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.embed_speed import texts, timed
from benchmarks.hardware import headline, today
from data_catalog.errors import UserError
from pipeline.cluster.tree import load_tree
from pipeline.config import Embed
from pipeline.embed.encoder import Encoder, load_encoder

EXACT = ("torch", "float32")
OTHERS = (
    ("torch", "bfloat16"),
    ("onnx", "float32"),
    ("onnx", "int8"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
)


def cells(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return the nearest non-empty cell of each vector."""
    cosine = x @ centroids.T
    cosine[:, ~centroids.any(axis=1)] = -np.inf
    return cosine.argmax(axis=1)


def installed_encoders() -> dict[tuple[str, str], Encoder]:
    """Return the encoders that can be loaded, and print why others cannot."""
    encoders = {}
    for backend, precision in (EXACT, *OTHERS):
        try:
            encoders[backend, precision] = load_encoder(
                Embed.model_validate({"backend": backend, "precision": precision})
            )
        except UserError as error:
            print(error)
    return encoders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--corpus", type=Path, default=Path("../shared/corpus"))
    parser.add_argument(
        "--catalog", type=Path, default=Path("catalogs/sample"), help="catalog with the tree"
    )
    parser.add_argument("--trial", action="store_true", help="do not write a result file")
    arguments = parser.parse_args()
    documents = texts(arguments.corpus, arguments.documents)
    tree = load_tree(arguments.catalog / "tree")
    levels = tree.levels.granularities
    encoders = installed_encoders()
    # This run also compiles the kernels of each length.
    vectors = {name: encoder.encode(documents) for name, encoder in encoders.items()}
    rates: dict[tuple[str, str], list[float]] = {name: [] for name in encoders}
    for _ in range(arguments.rounds):
        for name, encoder in encoders.items():
            seconds, _ = timed(encoder.encode, documents)
            rates[name].append(len(documents) / seconds)
    exact = vectors[EXACT]
    rows = [
        "| backend | precision | documents/s: median (minimum, maximum) | ratio to float32 "
        "| minimum cosine | mean cosine | "
        + " | ".join(f"same cell of {k}" for k in levels)
        + " |",
        "|---" * (6 + len(levels)) + "|",
    ]
    for (backend, precision), speeds in rates.items():
        x = vectors[backend, precision]
        cosine = (x * exact).sum(axis=1)
        same = [
            (cells(x, tree.centroids[k]) == cells(exact, tree.centroids[k])).mean() for k in levels
        ]
        ratio = np.median(np.array(speeds) / np.array(rates[EXACT]))
        rows.append(
            f"| {backend} | {precision} "
            f"| {np.median(speeds):.1f} ({min(speeds):.1f}, {max(speeds):.1f}) | {ratio:.2f} "
            f"| {cosine.min():.5f} | {cosine.mean():.5f} | "
            + " | ".join(f"{share:.1%}" for share in same)
            + " |"
        )
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("onnxruntime", "openvino") if find_spec(name)
    )
    text = (
        f"# Backends of the encoder\n\n{headline()}\n\n"
        f"{len(documents)} documents, {arguments.rounds} rounds. {versions}\n\n" + "\n".join(rows)
    )
    print(text)
    if not arguments.trial:
        Path(f"benchmarks/results/{today()}-embed-backends.md").write_text(
            text + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
