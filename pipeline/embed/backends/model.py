"""The protocol of a model that the encoder runs, and the choice of its runtime."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64

from data_catalog.format.encoder_identity import Identity
from pipeline.embed.identity import has_cuda


@runtime_checkable
class EncoderModel(Protocol):
    """One copy of the model on one device, used by one thread at a time."""

    device: str
    batch_tokens: int  # padding included; the encoder lowers it when the device's memory runs out

    def start(
        self, ids: Int64[np.ndarray, "batch length"], mask: Int64[np.ndarray, "batch length"]
    ) -> Callable[[], Float32[np.ndarray, "batch dim"]]:
        """Begin a batch and return a function that waits for its embeddings.

        The embeddings need not have unit norm.

        Raises:
            MemoryError: The batch is too large for the device.
        """
        ...


def torch_devices() -> list[str]:
    """Return torch's devices for copies of the model: every visible GPU, or the processor."""
    if not has_cuda():
        return ["cpu"]
    import torch  # noqa: PLC0415

    return [f"cuda:{i}" for i in range(torch.cuda.device_count())]


def load_models(
    identity: Identity, folder: Path, batch_tokens: int | None
) -> Sequence[EncoderModel]:
    """Return copies of the model in `folder`, one per device. The first is ready to use.

    `batch_tokens` is the maximum number of tokens in a batch. None stands for the number that was
    measured to suit the device.

    Raises:
        UserError: The model is not a transformer, or its dimension differs from its config
            files.
    """
    match identity.backend:
        case "torch":
            from pipeline.embed.backends.with_torch import load_torch  # noqa: PLC0415

            return [
                load_torch(identity, folder, device, batch_tokens) for device in torch_devices()
            ]
        case "onnx":
            from pipeline.embed.backends.with_onnx import load_onnx  # noqa: PLC0415

            return [load_onnx(identity, folder, batch_tokens)]
        case "openvino":
            from pipeline.embed.backends.with_openvino import load_openvino  # noqa: PLC0415

            return [load_openvino(identity, folder, batch_tokens)]
