"""The model as an ONNX file, exported once per set of weights and kept in the user's cache."""

import logging
import os
import threading
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_catalog.errors import UserError
from data_catalog.format.encoder_identity import Identity
from data_catalog.format.manifest import fingerprint
from data_catalog.temporary import replacing

logger = logging.getLogger(__name__)

# Versions of the output:
# 1: ONNX with dynamic batch and length.
VERSION = 1
ONNX_OPSET = 18
_exporting = threading.Lock()  # the tracer is not thread-safe


def model_cache_folder() -> Path:
    """Return the folder of exported models: `clustermix` in $XDG_CACHE_HOME or ~/.cache.

    It is safe to delete.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clustermix"


def export_onnx(identity: Identity, folder: Path) -> Path:
    """Return the ONNX file of the model in `folder`, in float32 or int8, exporting it if needed.

    Inputs are `ids` and `mask`, `(batch, length)` int64. The output is `embeddings`, `(batch,
    dim)`.

    Raises:
        UserError: The model cannot be exported.
    """
    layers = sorted(
        (path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8"))
        for path in folder.rglob("config.json")
    )
    key = fingerprint(
        "onnx",
        VERSION,
        ONNX_OPSET,
        identity.sha256,
        layers,
        version("torch"),
        version("transformers"),
    )[:20]
    plain = model_cache_folder() / "onnx" / key / "model.onnx"
    with _exporting:
        if not plain.is_file():
            _export(identity, folder, plain)
        if identity.precision != "int8":
            return plain
        small = plain.with_name("model-int8.onnx")
        if not small.is_file():
            _quantize(plain, small)
        return small


def _export(identity: Identity, folder: Path, place: Path) -> None:
    import torch  # noqa: PLC0415

    from pipeline.embed.backends.with_torch import embed_tokens, load_sentence_transformer  # noqa: PLC0415

    class Whole(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return embed_tokens(self.model, ids, mask)

    logger.info("encoder %s: exporting to %s", identity.model, place)
    model = load_sentence_transformer(identity, folder, "cpu")
    example = torch.ones(2, 16, dtype=torch.int64)
    batch = {0: "batch", 1: "length"}
    with replacing(place) as temporary, warnings.catch_warnings(), torch.no_grad():
        # The tracer warns about shapes. Tests compare the result at other shapes.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                Whole(model).eval(),
                (example, example.clone()),
                str(temporary),
                dynamo=False,
                opset_version=ONNX_OPSET,
                input_names=["ids", "mask"],
                output_names=["embeddings"],
                dynamic_axes={"ids": batch, "mask": batch, "embeddings": {0: "batch"}},
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise UserError(
                f"embed.backend {identity.backend}: {identity.model} cannot be exported "
                f'({str(error).splitlines()[0]}). Set embed.backend = "torch".'
            ) from error


def _quantize(plain: Path, place: Path) -> None:
    """Quantize weights of matrix products to 8 bits, one scale per channel.

    Activations are quantized when they are computed.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    root = logging.getLogger()
    level = root.level
    # The root logger would advise preprocessing, which does not change the result here.
    root.setLevel(logging.ERROR)
    try:
        with replacing(place) as temporary:
            quantize_dynamic(plain, temporary, per_channel=True, weight_type=QuantType.QInt8)
    finally:
        root.setLevel(level)
