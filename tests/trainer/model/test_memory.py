"""Sizes from the config alone, compared with those of built models."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_catalog.errors import UserError
from trainer.config import Model, Training
from trainer.model.loss import LanguageLoss
from trainer.model.memory import activation_bytes, memory_need, model_shape
from trainer.model.model import build_model

SMALL = Model(hidden_size=64, layers=3, heads=4)


@pytest.mark.parametrize("config", [SMALL, Model(hidden_size=96, layers=1, heads=2), Model()])
def test_the_parameters_of_a_preset_equal_those_of_the_built_model(config: Model) -> None:
    shape = model_shape(config, 512)
    assert shape is not None
    assert shape.parameters == sum(
        p.numel() for p in build_model(config, 512, 0, 64, 0).parameters()
    )


def test_a_saved_model_has_the_shape_of_its_preset(tmp_path: Path) -> None:
    build_model(SMALL, 512, 0, 64, 0).save_pretrained(tmp_path / "model")
    assert model_shape(Model(path=str(tmp_path / "model")), 512) == model_shape(SMALL, 512)
    assert model_shape(Model(path=str(tmp_path / "model" / "config.json")), 512) == model_shape(
        SMALL, 512
    )
    assert model_shape(Model(path="some/hub-name"), 512) is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"model\.path "):
        model_shape(Model(path=str(tmp_path / "empty")), 512)


def test_the_sizes_of_the_presets() -> None:
    found = [model_shape(Model(preset=name), 32_000) for name in ("125m", "350m", "750m")]
    assert [round(shape.parameters / 1e6) for shape in found if shape] == [110, 336, 755]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("layers", "hidden"), [(2, 64), (4, 64), (2, 128)])
def test_activations_are_within_5_percent_of_the_saved_tensors(
    precision: str, layers: int, hidden: int
) -> None:
    config = Model(hidden_size=hidden, layers=layers, heads=4)
    model = build_model(config, 512, 0, 64, 0)
    training = Training.model_validate(
        {"micro_batch_sequences": 8, "sequence_tokens": 64, "precision": precision}
    )
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = torch.randint(0, 512, (8, 64))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        LanguageLoss(model, precision)(tokens, tokens)
    found = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    shape = model_shape(config, 512)
    assert shape is not None
    logits = 2 * 4 * 8 * 64 * 512  # temporary tensors of the head
    assert activation_bytes(shape, training, "cpu") - logits == pytest.approx(found, rel=0.05)


def test_the_states_of_adamw_in_fp32() -> None:
    shape = model_shape(SMALL, 512)
    assert shape is not None
    need = memory_need(shape, Training(), aligns=True, device="cpu")
    assert [need.weights, need.gradients, need.optimizer, need.alignment] == [
        4 * shape.parameters * n for n in (1, 1, 2, 1)
    ]
    assert need.total == 20 * shape.parameters + need.activations
    assert (
        memory_need(shape, Training(), aligns=False, device="cpu").total
        == need.total - need.alignment
    )
    less = memory_need(shape, Training(checkpoint_activations=True), aligns=True, device="cpu")
    assert less.activations < 0.7 * need.activations
