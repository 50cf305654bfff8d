"""The model in ONNX Runtime on the processor, in float32 or with 8-bit weights."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Float32, Int64

from data_catalog.format.encoder_identity import Identity
from pipeline.embed.backends.exported import export_onnx

_BATCH_TOKENS = 2_048


class OnnxModel:
    """One session. It computes while `start` runs."""

    device = "cpu"

    def __init__(self, session: Any, batch_tokens: int) -> None:
        self.session = session
        self.batch_tokens = batch_tokens

    def start(
        self, ids: Int64[np.ndarray, "batch length"], mask: Int64[np.ndarray, "batch length"]
    ) -> Callable[[], Float32[np.ndarray, "batch dim"]]:
        [embeddings] = self.session.run(None, {"ids": ids, "mask": mask})
        return lambda: embeddings


def load_onnx(identity: Identity, folder: Path, batch_tokens: int | None) -> OnnxModel:
    """Load the exported model. See `pipeline.embed.backends.model.load_models`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))  # 0: one per core
    # Spinning threads would take cores from other work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        export_onnx(identity, folder), options, providers=["CPUExecutionProvider"]
    )
    return OnnxModel(session, batch_tokens or _BATCH_TOKENS)
