"""Precision of the passes of a model, as the device allows."""

import torch

from trainer.config import Training


def automatic_precision(device: str) -> str:
    """Return the value of `training.precision` that "auto" stands for on a type of device."""
    # bfloat16 that a GPU emulates is slower than float32.
    native = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if native else "float32"


def settled(training: Training, device: str) -> Training:
    """Return the settings with the precision for a type of device, if it is "auto"."""
    if training.precision != "auto":
        return training
    return training.model_copy(update={"precision": automatic_precision(device)})


def use_precision(precision: str, device: str) -> None:
    """Let the float32 products of this process use TF32 on a GPU, or not."""
    if device == "cuda":
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
