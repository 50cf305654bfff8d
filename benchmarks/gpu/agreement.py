"""Agreement of a GPU with the processor: the same small inputs on both.

The reference is the processor in float32.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.linalg import norm

from benchmarks.architectures import TOKENS, VOCABULARY, by_sequence, text, train
from benchmarks.gpu.embedding import encoder_config, texts
from benchmarks.gpu.rows import Part
from benchmarks.gpu.training import device_of_this_process
from pipeline.cluster.backends.backend import nearest_cells
from pipeline.cluster.backends.with_torch import TorchBackend
from pipeline.cluster.kmeans import squared_distance, unit_rows
from pipeline.config import Cluster, Embed
from pipeline.embed.encoder import load_encoder
from trainer.alignment.direction import target_direction
from trainer.alignment.finite_difference import finite_differences
from trainer.alignment.ghost import Ghost
from trainer.config import Model, Training
from trainer.distributed import Team
from trainer.model.engine import build_engine
from trainer.model.model import build_model

PRECISIONS = ("float32", "bfloat16")
DOCUMENTS, VECTORS, CELLS, STEPS = 32, 20_000, 1_024, 20
MEASURED = {
    "losses": "loss of each of 16 sequences",
    "gradient": "gradient of their mean loss",
    "exact": "scores by one backward pass per sequence",
    "ghost": "scores of the ghost backend",
    "finite_difference": "scores by finite differences",
    "after": f"loss after {STEPS} steps of AdamW",
}
Arrays = dict[str, np.ndarray]


def run(part: Part) -> None:
    config, weights = encoder_config(part)
    file = part.scratch / "processor.npz"
    command = [sys.executable, "-m", "benchmarks.gpu.agreement", config.model, str(file)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, env=environment, check=True, timeout=max(part.seconds_left(), 1))
    with np.load(file) as loaded:
        expected = dict(loaded)
    for measured, note, values in compare(compute(config.model), expected):
        part.record(measured, f"{weights}; {note}" if "embed" in measured else note, **values)


def compare(found: Arrays, expected: Arrays) -> list[tuple[str, str, dict[str, float]]]:
    """Return a row for each result of this process's device: its name, a note and values."""
    rows = []
    for precision in PRECISIONS:
        cosines = (found[f"embed {precision}"] * expected["embed float32"]).sum(1)
        values = {"minimum_cosine": float(cosines.min())}
        rows.append((f"embeddings, {precision}", f"{len(cosines)} documents", values))
    same, cosine = found["cells"] == expected["cells"], found["cosines"] - expected["cosines"]
    values = {
        "share_of_equal_cells": float(same.mean()),
        "largest_difference_of_a_cosine": float(np.abs(cosine).max()),
    }
    rows.append(("nearest cells in torch", f"{VECTORS:,} vectors, {CELLS:,} cells", values))
    inertia = float(found["inertia"] / expected["inertia"]) - 1
    values = {"relative_difference_of_inertia": inertia}
    rows.append(("k-means in torch", f"5 iterations, {CELLS:,} cells", values))
    for precision in PRECISIONS:
        for key, note in MEASURED.items():
            # Scores are compared with the exact ones, so that a backend's own error is included.
            reference = "exact" if key in ("ghost", "finite_difference") else key
            wanted = expected[f"{reference} float32"]
            error = norm(found[f"{key} {precision}"] - wanted) / norm(wanted)
            name = f"{key.replace('_', ' ')}, {precision}"
            rows.append((name, f"a model of two layers; {note}", {"relative_error": float(error)}))
    return rows


def compute(model: str) -> Arrays:
    """Return everything that is compared, computed on this process's device.

    Args:
        model: name or folder of the encoder.
    """
    arrays: Arrays = {}
    for precision in PRECISIONS:
        encoder = load_encoder(Embed(model=model, precision=precision))
        arrays[f"embed {precision}"] = encoder.encode(texts(encoder, DOCUMENTS))
        arrays |= {f"{key} {precision}": value for key, value in _trained(precision).items()}
    return arrays | _clustered()


def _clustered() -> Arrays:
    random = np.random.Generator(np.random.Philox(key=1))
    themes = random.standard_normal((CELLS, 64), np.float32)
    noise = random.standard_normal((VECTORS, 64), np.float32)
    x = unit_rows(themes[random.integers(CELLS, size=VECTORS)] + noise).astype(np.float16)
    start = unit_rows(x[:CELLS])
    cells, cosines = nearest_cells(x, start, 0, "torch")
    centroids = TorchBackend().train(x, start, Cluster(iterations=5), 0)
    distances = squared_distance(nearest_cells(x, centroids, 0, "torch")[1])
    return {
        "cells": cells,
        "cosines": cosines,
        "inertia": distances.mean(dtype=np.float64),
    }


def _trained(precision: Any) -> Arrays:
    settings = Model(layers=2, hidden_size=64, heads=2)
    engine = build_engine(
        build_model(settings, VOCABULARY, 0, TOKENS, 0),
        Training(sequence_tokens=TOKENS, precision=precision),
        Team(device=device_of_this_process()),
    )
    direction = target_direction(engine, lambda: engine.backward(text(1))[0])
    engine.clear()
    with Ghost(engine, direction) as ghost:
        losses = engine.backward(text(2))[1]
    gradients = [p.grad.flatten() for p in engine.parameters().values() if p.grad is not None]
    results = {"losses": losses, "gradient": torch.cat(gradients), "ghost": ghost.scores}
    engine.clear()
    results["finite_difference"] = finite_differences(engine, direction, text(2))[0]
    results["exact"] = by_sequence(engine, direction, text(2))
    results["after"] = torch.tensor([train(engine, STEPS)[1]])
    return {name: tensor.detach().double().cpu().numpy() for name, tensor in results.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="name or folder of the encoder")
    parser.add_argument("out", type=Path, help="file of arrays")
    arguments = parser.parse_args()
    np.savez(arguments.out, **compute(arguments.model))
