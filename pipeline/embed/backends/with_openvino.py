"""The model in OpenVINO on the processor, in float32 or bfloat16."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from jaxtyping import Float32, Int64

from data_catalog.format.encoder_identity import Identity
from pipeline.embed.backends.exported import export_onnx

_BATCH_TOKENS = 2_048
_PRECISION_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenvinoModel:
    """One compiled model. It computes while `start` runs."""

    device = "cpu"

    def __init__(self, compiled: Any, batch_tokens: int) -> None:
        self.compiled = compiled
        self.batch_tokens = batch_tokens

    def start(
        self, ids: Int64[np.ndarray, "batch length"], mask: Int64[np.ndarray, "batch length"]
    ) -> Callable[[], Float32[np.ndarray, "batch dim"]]:
        embeddings: Float32[np.ndarray, "batch dim"] = self.compiled([ids, mask])[0]
        return lambda: embeddings


def load_openvino(identity: Identity, folder: Path, batch_tokens: int | None) -> OpenvinoModel:
    """Load the exported model. See `pipeline.embed.backends.model.load_models`."""
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[identity.precision],
    }
    if threads := os.environ.get("OMP_NUM_THREADS"):
        hints["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(export_onnx(identity, folder), "CPU", hints)
    return OpenvinoModel(compiled, batch_tokens or _BATCH_TOKENS)
