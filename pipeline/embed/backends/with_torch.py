"""The model in torch, through sentence-transformers, on a processor or a GPU.

On a GPU the next batch is started before the last one's embeddings are read.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64

from data_catalog.errors import UserError, first_line
from data_catalog.format.encoder_identity import Identity

logger = logging.getLogger(__name__)

CPU_BATCH_TOKENS = 4_096  # larger batches do not fit the cache of the CPU
GPU_BATCH_TOKENS = 65_536  # smaller batches leave the GPU idle between kernels


def load_torch(
    identity: Identity, folder: Path, device: str, batch_tokens: int | None
) -> "TorchModel":
    """Load the model on one device. See `pipeline.embed.backends.model.load_models`."""
    model = load_sentence_transformer(identity, folder, device)
    if identity.precision == "bfloat16":
        # The following layers (pooling and normalisation) stay in float32.
        model.transformers_model.to(torch.bfloat16)
    logger.info(
        "encoder %s: torch on %s in %s, %d threads",
        identity.model,
        device,
        identity.precision,
        torch.get_num_threads(),
    )
    most = CPU_BATCH_TOKENS if device == "cpu" else GPU_BATCH_TOKENS
    return TorchModel(model, device, batch_tokens or most)


def load_sentence_transformer(identity: Identity, folder: Path, device: str) -> Any:
    """Return the sentence-transformers model, in float32 and ready for inference.

    Raises:
        UserError: The model is invalid, see `pipeline.embed.backends.model.load_models`.
    """
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415

    with_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = SentenceTransformer(
            str(folder),
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            # Without a dtype, transformers would load a checkpoint in the dtype it was saved in.
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
        )
        model = model.float().eval()  # modules after the transformer, too
    except Exception as error:  # a damaged or foreign model raises errors of many kinds
        raise UserError(
            f"embed.model {identity.model}: sentence-transformers cannot load {folder} "
            f"({first_line(error)}). Restore the model's files, or choose another model."
        ) from error
    finally:
        if with_bar:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    if model.transformers_model is None:
        raise UserError(
            f"embed.model {identity.model}: not a transformer. "
            "Choose another model, such as all-MiniLM-L6-v2."
        )
    if (dimension := model.get_embedding_dimension()) != identity.dimension:
        raise UserError(
            f"embed.model {identity.model}: its config files give {identity.dimension} dimensions, "
            f"but its embeddings have {dimension}. Restore the model's files."
        )
    return model


def embed_tokens(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return sentence embeddings, `(batch, dim)` float32, pooling in float32."""
    features: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "modality": "text"}
    if "token_type_ids" in model.tokenizer.model_input_names:
        features["token_type_ids"] = torch.zeros_like(ids)
    first, *others = model
    features = first(features)
    features["token_embeddings"] = features["token_embeddings"].float()
    for module in others:
        features = module(features)
    return features["sentence_embedding"].float()


class TorchModel:
    """A sentence-transformers model on one device.

    On a GPU `start` returns before the batch is finished.
    """

    def __init__(self, model: Any, device: str, batch_tokens: int) -> None:
        self.model = model
        self.device = device
        self.batch_tokens = batch_tokens

    def start(
        self, ids: Int64[np.ndarray, "batch length"], mask: Int64[np.ndarray, "batch length"]
    ) -> Callable[[], Float32[np.ndarray, "batch dim"]]:
        with torch.inference_mode():
            if self.device == "cpu":
                array: Float32[np.ndarray, "batch dim"] = embed_tokens(
                    self.model, torch.from_numpy(ids), torch.from_numpy(mask)
                ).numpy()
                return lambda: array
            return self._start_on_gpu(torch.from_numpy(ids), torch.from_numpy(mask))

    def _start_on_gpu(
        self, ids: torch.Tensor, mask: torch.Tensor
    ) -> Callable[[], Float32[np.ndarray, "batch dim"]]:
        with torch.cuda.device(self.device):
            try:
                inputs = [
                    tensor.pin_memory().to(self.device, non_blocking=True) for tensor in (ids, mask)
                ]
                # The result is copied into pinned memory.
                embeddings = embed_tokens(self.model, *inputs).to("cpu", non_blocking=True)
            except torch.OutOfMemoryError as error:
                torch.cuda.empty_cache()
                raise MemoryError(str(error)) from error
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()

        def finish() -> Float32[np.ndarray, "batch dim"]:
            copied.synchronize()
            array: Float32[np.ndarray, "batch dim"] = embeddings.numpy()
            return array

        return finish
