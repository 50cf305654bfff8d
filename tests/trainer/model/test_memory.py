"""Memory from the config alone, compared with what torch allocates in a real step."""

from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig

from data_catalog.errors import UserError
from tests.helpers.tiny_experts import tiny_experts
from tests.helpers.tiny_models import tiny_model
from trainer.config import Model, Training
from trainer.distributed import Team
from trainer.model.engine import build_engine
from trainer.model.head import LOGITS_PER_PIECE
from trainer.model.memory import activation_bytes, empty_model, memory_need
from trainer.model.model import build_model
from trainer.sampling.batches import Batch

SMALL = Model(hidden_size=64, layers=3, heads=4)


@pytest.mark.parametrize("config", [SMALL, Model(hidden_size=96, layers=1, heads=2), Model()])
def test_the_parameters_of_a_preset_equal_those_of_the_built_model(config: Model) -> None:
    model = empty_model(config, 512, 64)
    assert model is not None
    built = build_model(config, 512, 0, 64, 0)
    assert model.num_parameters() == sum(p.numel() for p in built.parameters())


def test_a_saved_model_has_the_size_of_its_preset(tmp_path: Path) -> None:
    build_model(SMALL, 512, 0, 64, 0).save_pretrained(tmp_path / "model")
    wanted = empty_model(SMALL, 512, 64)
    for path in (tmp_path / "model", tmp_path / "model" / "config.json"):
        found = empty_model(Model(path=str(path)), 512, 64)
        assert found is not None
        assert wanted is not None
        assert found.num_parameters() == wanted.num_parameters()
    assert empty_model(Model(path="some/hub-name"), 512, 64) is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"model\.path "):
        empty_model(Model(path=str(tmp_path / "empty")), 512, 64)


def test_experts_that_nothing_balances_are_refused_without_their_weights(tmp_path: Path) -> None:
    tiny_experts("deepseek_v2").config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"model\.path .*DeepseekV2"):
        empty_model(Model(path=str(tmp_path / "config.json")), 61, 12)


def test_the_sizes_of_the_presets() -> None:
    found = [empty_model(Model(preset=name), 32_000, 64) for name in ("125m", "350m", "750m")]
    assert [round(model.num_parameters() / 1e6) for model in found if model] == [110, 336, 755]


@pytest.mark.parametrize(
    ("settings", "batch"),
    [
        ({}, 8),
        ({"precision": "bfloat16"}, 8),
        ({"checkpoint_activations": True}, 8),
        ({}, 16),  # two micro-batches
    ],
)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen3", "olmoe"])
def test_activations_are_within_10_percent_of_what_torch_allocates(
    tmp_path: Path, architecture: str, settings: dict[str, object], batch: int
) -> None:
    if architecture == "olmoe":
        tiny_experts().config.save_pretrained(tmp_path)
    else:
        tiny_model(architecture).config.save_pretrained(tmp_path)
    path = Model(path=str(tmp_path / "config.json"))
    training = Training.model_validate(
        {"micro_batch_sequences": 8, "batch_sequences": batch, "sequence_tokens": 12, **settings}
    )
    empty = empty_model(path, 61, 12)
    assert empty is not None
    engine = build_engine(build_model(path, 61, 0, 12, 0), training, Team())
    tokens = torch.randint(0, 61, (batch, 12))
    engine.backward(Batch(tokens, tokens, tokens.numel()))
    engine.clear()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        engine.backward(Batch(tokens, tokens, tokens.numel()))
    events = profiled.profiler.kineto_results.events()
    changes = [event.nbytes() for event in events if event.name() == "[memory]"]
    held = torch.tensor(changes).cumsum(0)
    gradients = sum(4 * p.numel() for p in engine.model.parameters() if p.grad is not None)
    assert activation_bytes(empty, training) == pytest.approx(int(held.max()) - gradients, rel=0.1)


def test_a_head_that_is_not_plain_keeps_all_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOGITS_PER_PIECE, "cpu", 2**12)
    training = Training(batch_sequences=8, micro_batch_sequences=8, sequence_tokens=12)
    logits = 4 * 8 * 12 * 4096
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    for kind, fewest, most in (("llama", 0, 1), ("cohere", 2, 9)):
        heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
        config = AutoConfig.for_model(kind, vocab_size=4096, **sizes, **heads)
        config.save_pretrained(tmp_path / kind)
        model = empty_model(Model(path=str(tmp_path / kind / "config.json")), 4096, 12)
        assert model is not None
        assert fewest * logits < activation_bytes(model, training) < most * logits, kind


def test_the_states_of_adamw_in_fp32() -> None:
    def need(*, aligns: bool, **settings: object) -> tuple[int, ...]:
        model = empty_model(SMALL, 512, 64)
        assert model is not None
        found = memory_need(model, Training.model_validate(settings), aligns=aligns)
        assert found is not None
        assert found.total == sum(found.model_dump(exclude={"total"}).values())
        return found.weights, found.gradients, found.optimizer, found.alignment, found.activations

    model = empty_model(SMALL, 512, 64)
    assert model is not None
    whole = need(aligns=True)
    assert whole[:4] == tuple(4 * model.num_parameters() * n for n in (1, 1, 2, 1))
    assert need(aligns=False) == (*whole[:3], 0, whole[4])
    assert need(aligns=True, checkpoint_activations=True)[4] < 0.7 * whole[4]
