"""The keys of an exported model's `config.json`, for readers of transformers 4 and 5.

transformers 5 writes the rotary position embeddings as `rope_parameters` and the element type as
`dtype`. transformers 4, vLLM and llama.cpp read `rope_theta`, `rope_scaling` and `torch_dtype`.
Without them they take defaults and compute other logits, without a warning. An exported config has
both forms.
"""

from typing import Any

# Name of the base of the rotary embeddings, and of the share of the head that is rotated, in model
# types of transformers 4 that have their own.
_OWN_NAMES = {
    "gpt_neox": ("rotary_emb_base", "rotary_pct"),
    "gpt_neox_japanese": ("rotary_emb_base", "rotary_pct"),
}
# Name of the base by type of layer, in models whose layers differ.
_BASES = {"full_attention": "rope_theta", "sliding_attention": "rope_local_base_freq"}
_ORIGINAL = "original_max_position_embeddings"


def with_earlier_keys(config: dict[str, Any]) -> dict[str, Any]:
    """Return a `config.json` that transformers 5 wrote, with the keys of transformers 4 added.

    Args:
        config: the parsed file.
    """
    # Code that came with a checkpoint is never run and is not exported.
    added = {key: value for key, value in config.items() if key != "auto_map"}
    if "dtype" in added:
        added["torch_dtype"] = added["dtype"]
    if "num_local_experts" in added:
        added.setdefault("num_experts", added["num_local_experts"])
    rotary = added.get("rope_parameters")
    if rotary:
        added |= _by_layer(rotary) if _nested(rotary) else _flat(rotary, added)
    for name, part in added.items():  # such as the `text_config` of a model that also reads images
        if name.endswith("_config") and isinstance(part, dict) and "model_type" in part:
            added[name] = with_earlier_keys(part)
    return added


def _nested(rotary: dict[str, Any]) -> bool:
    """Return whether each type of layer has its own parameters."""
    return all(isinstance(value, dict | None) for value in rotary.values())


def _by_layer(rotary: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a model whose types of layers differ."""
    keys = {
        name: rotary[layer]["rope_theta"] for layer, name in _BASES.items() if rotary.get(layer)
    }
    scaling = _scaling(rotary.get("full_attention") or {})
    return {**keys, "rope_scaling": scaling} if scaling else keys


def _flat(rotary: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a model whose layers are alike."""
    names = ("rope_theta", "partial_rotary_factor")
    keys = {name: rotary[name] for name in names if name in rotary}
    own = _OWN_NAMES.get(config.get("model_type", ""), ())
    keys |= {key: rotary[name] for name, key in zip(names, own, strict=False) if name in rotary}
    scaling = _scaling(rotary)
    if scaling and scaling["rope_type"] == "longrope":
        # Phi-3 has its original length as a key of the config, and accepts no further key here.
        scaling["type"] = scaling.pop("rope_type")
        if _ORIGINAL in config:
            scaling.pop(_ORIGINAL)
        keys[_ORIGINAL] = rotary[_ORIGINAL]
    return {**keys, "rope_scaling": scaling} if scaling else keys


def _scaling(rotary: dict[str, Any]) -> dict[str, Any]:
    """Return what transformers 4 calls `rope_scaling`. It is empty without scaling."""
    if rotary.get("rope_type", "default") == "default":
        return {}
    return {
        key: value
        for key, value in rotary.items()
        if key not in ("rope_theta", "partial_rotary_factor")
    }
