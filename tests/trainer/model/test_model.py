"""Models: sizes of the presets, loading, and operations per token."""

import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from data_catalog.errors import UserError
from tests.helpers.tiny_models import TOKENS, VOCABULARY, tiny_model
from trainer.config import Model
from trainer.model.flops import flops_per_token, peak_flops, utilisation
from trainer.model.model import build_model


def build(
    path: Path | str | None = None, *, vocabulary: int = VOCABULARY, seed: int = 0, **config: object
) -> PreTrainedModel:
    settings = Model.model_validate({**config, "path": None if path is None else str(path)})
    return build_model(settings, vocabulary, 0, TOKENS, seed)


@pytest.mark.parametrize(
    ("preset", "block", "layers", "width"),
    [
        ("125m", 4 * 768**2 + 3 * 768 * 2048 + 2 * 768, 12, 768),
        ("350m", 4 * 1024**2 + 3 * 1024 * 2752 + 2 * 1024, 24, 1024),
        ("750m", 4 * 1280**2 + 3 * 1280 * 3456 + 2 * 1280, 36, 1280),
    ],
)
def test_presets_have_their_size(preset: str, block: int, layers: int, width: int) -> None:
    with torch.device("meta"):  # shapes without storage
        model = build(preset=preset, vocabulary=50_257)
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == layers * block + width + 50_257 * width
    assert parameters == pytest.approx(float(preset[:-1]) * 1e6, rel=0.04)


def test_a_qwen3_preset_shares_keys_and_normalises_queries() -> None:
    model = build(architecture="qwen3", hidden_size=32, layers=1, heads=4)
    attention = model.base_model.layers[0].self_attn
    assert attention.k_proj.weight.shape == attention.v_proj.weight.shape == (16, 32)
    assert attention.q_proj.weight.shape == (32, 32)
    assert attention.q_norm.weight.shape == attention.k_norm.weight.shape == (8,)
    assert model.config.tie_word_embeddings
    with pytest.raises(UserError, match=r"model\.heads 3"):
        build(architecture="qwen3", hidden_size=30, layers=1, heads=3)


def test_flops_by_hand() -> None:
    """They are 6 per parameter of a product, plus 12 L H Q T."""
    model = tiny_model("llama", tied=True)
    parameters = sum(p.numel() for p in model.parameters())
    assert flops_per_token(model, 10) == 6 * parameters + 12 * 2 * 4 * 8 * 10
    untied = tiny_model("llama", tied=False)  # the table of inputs is read, not multiplied
    assert flops_per_token(untied, 10) == flops_per_token(model, 10)
    positions = tiny_model("gpt2").get_parameter("transformer.wpe.weight").numel()
    assert flops_per_token(tiny_model("gpt2"), 0) == 6 * (
        sum(p.numel() for p in tiny_model("gpt2").parameters()) - positions
    )


def test_utilisation_needs_a_known_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    model, gpu = tiny_model(), torch.device("cuda", 0)
    assert utilisation(model, 10, 1e3, torch.device("cpu"), 1) is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 PCIe")
    assert peak_flops(gpu) == 756e12
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    assert utilisation(model, 10, 2 * 989e12 / flops_per_token(model, 10), gpu, 4) == pytest.approx(
        0.5
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA GeForce GTX 1080")
    assert peak_flops(gpu) is None


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "gpt_neox"])
def test_a_checkpoint_is_loaded_with_its_weights(tmp_path: Path, architecture: str) -> None:
    saved = tiny_model(architecture)
    saved.save_pretrained(tmp_path)
    model = build(tmp_path)
    assert model.state_dict().keys() == saved.state_dict().keys()
    assert all(
        torch.equal(tensor, saved.state_dict()[name]) for name, tensor in model.state_dict().items()
    )
    assert model.config._attn_implementation == "sdpa"
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training


def test_a_config_alone_gives_random_weights_of_its_shape(tmp_path: Path) -> None:
    saved = tiny_model("qwen2")
    saved.config.save_pretrained(tmp_path)
    first, again, other = (build(tmp_path / "config.json", seed=seed) for seed in (1, 1, 2))
    table = [model.get_input_embeddings().weight for model in (first, again, other)]
    assert torch.equal(table[0], table[1])
    assert not torch.equal(table[0], table[2])
    assert table[0].shape == saved.get_input_embeddings().weight.shape


def test_building_a_model_leaves_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    build(hidden_size=32, layers=1, heads=2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_models_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.hidden_size 30: .* 4 heads"):
        build(hidden_size=30, heads=4)
    with pytest.raises(UserError, match=r"model\.path .*folder"):
        build(tmp_path)
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"model.path .*{VOCABULARY} token .* 1000"):
        build(tmp_path, vocabulary=1000)
    with pytest.raises(UserError, match=f"reads {TOKENS} tokens"):
        build_model(Model(path=str(tmp_path)), VOCABULARY, 0, TOKENS + 1, 0)


@pytest.mark.parametrize("name", ["", "config.json"])
def test_code_that_comes_with_a_checkpoint_never_runs(tmp_path: Path, name: str) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(
        f"open({str(ran)!r}, 'w').close()\nclass Config: pass\nclass Model: pass\n"
    )
    claims = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": claims}))
    with pytest.raises(UserError, match=r"model\.path "):
        build(tmp_path / name)
    assert not ran.exists()
