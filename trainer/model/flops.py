"""Floating-point operations of training, and their share of a GPU's peak."""

import torch
from torch import nn
from transformers import PreTrainedModel

from trainer.model.experts import unused_parameters

# Dense bfloat16 operations per second, from the vendor's data sheets. The first key that is part of
# the device's name applies.
PEAK_FLOPS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
}


def flops_per_token(model: PreTrainedModel, sequence_tokens: int) -> float:
    """Return the operations of the forward and backward pass of one token.

    The number is `6 N + 12 L H Q T` (Chowdhery et al. 2022, PaLM, appendix B), with N parameters, L
    layers, H heads of Q dimensions and T tokens per sequence. N counts the parameters that take
    part in a matrix product (Kaplan et al. 2020). Embedding tables are excluded unless they are
    tied to the head. Of the experts of a layer, those that a token uses are counted. The products
    that causal attention could skip are counted. Recomputed activations are not. Models without
    attention have H = 0, and their recurrences are not counted.

    Args:
        model: the model, which may be on the meta device.
        sequence_tokens: number of tokens per sequence.
    """
    config = model.config.get_text_config()
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    tables = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)} - {
        head.weight
    }
    unused = sum(table.numel() for table in tables) + unused_parameters(model)
    parameters = sum(p.numel() for p in model.parameters()) - unused
    heads = int(getattr(config, "num_attention_heads", 0))
    width = int(getattr(config, "head_dim", None) or config.hidden_size // max(heads, 1))
    return 6.0 * parameters + 12.0 * int(config.num_hidden_layers) * heads * width * sequence_tokens


def peak_flops(device: torch.device) -> float | None:
    """Return the peak of one GPU per second in bfloat16, or None if unknown."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)


def utilisation(
    model: PreTrainedModel,
    sequence_tokens: int,
    tokens_per_second: float,
    device: torch.device,
    world: int,
) -> float | None:
    """Return the model FLOPs utilisation (MFU), or None if the GPU's peak is unknown.

    It is the work of `tokens_per_second` over all processes, divided by the bfloat16 peak of their
    GPUs.
    """
    peak = peak_flops(device)
    return (
        None
        if peak is None
        else tokens_per_second * flops_per_token(model, sequence_tokens) / (peak * world)
    )
