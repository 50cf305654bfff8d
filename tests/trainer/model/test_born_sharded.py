"""A model that is born sharded has the weights of one that is built whole, bit for bit."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.helpers.processes import run_in_processes
from tests.helpers.tiny_models import ARCHITECTURES, tiny_model
from trainer.config import Model, Training
from trainer.distributed import Team
from trainer.model.born_sharded import NotShardableError, Shards
from trainer.model.engine import build_engine
from trainer.model.model import build_model

SIZES = Model(hidden_size=20, layers=2, heads=2)  # 31 and 20 rows: uneven parts
TOKENS = (31, 0, 8)  # vocabulary, end of text, positions


def build(config: Model, shards: Shards | None = None) -> PreTrainedModel:
    return build_model(config, *TOKENS, seed=5, shards=shards)


def assert_born(whole: nn.Module, make: Callable[[Shards], nn.Module], count: int = 3) -> None:
    """Check that the shards of all processes, put together, are the parameters of `whole`."""
    parts = []
    for index in range(count):
        shards = Shards(index, count)
        model = make(shards)
        parts.append(shards.release(model))
        assert all(parameter.is_meta for parameter in model.parameters())
        buffers = dict(whole.named_buffers())
        assert [name for name, _ in model.named_buffers()] == list(buffers)
        assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    expected = dict(whole.named_parameters())
    assert parts[0].keys() == expected.keys()
    for name, parameter in expected.items():
        assert torch.equal(torch.cat([part[name] for part in parts]), parameter), name
        assert len(parts[0][name]) == -(-len(parameter) // count)  # as FSDP2 divides it


def test_random_weights_are_those_of_a_whole_model() -> None:
    assert_born(build(SIZES), partial(build, SIZES))


@pytest.mark.parametrize("kind", ["gpt2", "mixtral", "qwen3"])
def test_random_weights_of_other_architectures(kind: str) -> None:
    names = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8}
    config = AutoConfig.for_model(kind, vocab_size=31, bos_token_id=0, eos_token_id=0, **names)
    config.pad_token_id = 3  # its embedding is zero

    def made(shards: Shards) -> nn.Module:
        torch.manual_seed(1)
        with shards.recording():
            model: nn.Module = AutoModelForCausalLM.from_config(config)
        drawn.append(torch.rand(1))
        return model

    drawn: list[torch.Tensor] = []
    torch.manual_seed(1)
    whole = AutoModelForCausalLM.from_config(config)
    assert_born(whole, made)
    assert {float(number) for number in drawn} == {float(drawn[0])}
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config)
    assert torch.equal(torch.rand(1), drawn[0])  # random numbers after it are the same too


@pytest.mark.parametrize("files", ["one", "several"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pretrained_weights_are_read_by_rows(tmp_path: Path, architecture: str, files: str) -> None:
    saved = tiny_model(architecture)
    saved.save_pretrained(tmp_path, max_shard_size="1GB" if files == "one" else "10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) == 1 or files == "several"
    read = build_model(Model(path=str(tmp_path)), *TOKENS, seed=0)
    make = partial(build_model, Model(path=str(tmp_path)), *TOKENS, 0)
    assert_born(read, make)
    born = make(Shards(0, 2))
    assert born.config.to_dict() == read.config.to_dict()
    assert born.generation_config.to_dict() == read.generation_config.to_dict()


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    tiny_model().to(torch.bfloat16).save_pretrained(tmp_path)
    config = Model(path=str(tmp_path))
    assert_born(build(config), partial(build, config))


def refused(config: Model) -> str:
    with pytest.raises(NotShardableError) as error:
        build(config, Shards(0, 2))
    return str(error.value)


def test_files_with_other_tensors_are_left_to_transformers(tmp_path: Path) -> None:
    tiny_model(tied=False).save_pretrained(tmp_path / "untied")
    tiny_model().save_pretrained(tmp_path / "tied")
    weights = "model.safetensors"
    shutil.copy(tmp_path / "tied" / weights, tmp_path / "untied" / weights)
    assert "not in its files" in refused(Model(path=str(tmp_path / "untied")))
    tiny_model("gpt2").save_pretrained(tmp_path / "gpt2")
    shutil.copy(tmp_path / "gpt2" / weights, tmp_path / "tied" / weights)
    assert "not a tensor of the model" in refused(Model(path=str(tmp_path / "tied")))
    (tmp_path / "tied" / weights).unlink()
    assert "safetensors" in refused(Model(path=str(tmp_path / "tied")))


def test_an_initialisation_that_compares_parameters_is_refused() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            with torch.no_grad():
                self.first.weight.mul_(2)  # its content is no longer there

    with pytest.raises(NotShardableError), Shards(0, 2).recording():
        Odd()
    assert not nn.Linear(2, 2).weight.is_meta  # the recording has ended


def build_in_process(rank: int, folder: Path, whole: bool) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=4)
    team, built = Team(rank, 4, local_world=2), {}
    for kind, count in (("fsdp2", 4), ("hsdp", 2)):
        shards = None if whole else Shards(rank % count, count)
        model = build(SIZES, shards)
        engine = build_engine(model, Training(parallel=kind), team, shards)  # type: ignore[arg-type]
        assert engine.model.lm_head.weight is engine.model.model.embed_tokens.weight
        built[kind] = {name: p.full_tensor().detach() for name, p in model.named_parameters()}  # type: ignore[attr-defined]
        built[f"{kind} digest"] = engine.digest()
        assert engine.copied == (kind == "hsdp")
    torch.save(built, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.system
def test_processes_hold_the_shards_of_one_model(tmp_path: Path) -> None:
    run_in_processes(build_in_process, 4, tmp_path, False)
    expected = {name: p.detach() for name, p in build(SIZES).named_parameters()}
    plain = build_engine(build(SIZES), Training(), Team()).digest()
    for rank in range(4):
        built: dict[str, Any] = torch.load(tmp_path / f"{rank}.pt")
        for kind in ("fsdp2", "hsdp"):
            assert built[f"{kind} digest"] == plain  # regardless of the number of copies
            assert all(torch.equal(built[kind][name], p) for name, p in expected.items())
