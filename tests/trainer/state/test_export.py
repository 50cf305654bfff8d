"""The folder of an exported model: keys of transformers 4 and 5, the catalog's tokens, a card."""

import json
import tomllib

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3TextConfig, PhiConfig

from data_catalog.format.files import open_files
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_models import tiny_model
from tests.helpers.tiny_training import tiny_config, write_config
from trainer.config import Model
from trainer.distributed import Team
from trainer.model.model import build_model
from trainer.state.export import context_tokens, export_model
from trainer.state.model_card import _settings
from trainer.state.model_config import with_earlier_keys

TEAM = Team(0, 1, torch.device("cpu"), 0)


@pytest.fixture
def files(tmp_path):
    return open_files(write_tiny_catalog(tmp_path / "catalog"), sequence_tokens=24)


def export(folder, files, model, card="# A model\n"):
    export_model(folder, model, files, context_tokens(model, 24), card, TEAM)
    return json.loads((folder / "config.json").read_text()), folder


def test_a_preset_is_described_for_both_versions_of_transformers(tmp_path, files):
    model = build_model(
        Model(layers=1, hidden_size=32, heads=2), files.manifest.tokenizer.vocabulary, 0, 24, 0
    )
    config, folder = export(tmp_path / "model", files, model)
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10_000
    assert config["torch_dtype"] == config["dtype"] == "float32"
    assert config["use_cache"] is True
    assert config["max_position_embeddings"] == 24
    assert config["architectures"] == ["LlamaForCausalLM"]
    generation = json.loads((folder / "generation_config.json").read_text())
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert config[name] == generation[name] == files.end_of_text
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tokenizer["model_max_length"] == 24
    own = files.layout.tokenizer / "tokenizer.json"
    assert (folder / "tokenizer.json").read_bytes() == own.read_bytes()
    assert (folder / "README.md").read_text() == "# A model\n"
    opened = AutoTokenizer.from_pretrained(folder)
    assert opened.eos_token_id == files.end_of_text
    assert AutoModelForCausalLM.from_pretrained(folder).config.rope_parameters["rope_theta"] == 1e4


def test_the_ends_of_a_checkpoint_become_those_of_the_catalog(tmp_path, files):
    start = tiny_model("qwen2")
    start.config.eos_token_id = start.generation_config.eos_token_id = 7
    start.save_pretrained(tmp_path / "start")
    model = build_model(Model(path=str(tmp_path / "start")), 61, 0, 12, 0)
    config, folder = export(tmp_path / "model", files, model)
    generation = json.loads((folder / "generation_config.json").read_text())
    assert (config["eos_token_id"], generation["eos_token_id"]) == (0, 0)


def test_scaled_rotary_embeddings_have_the_older_form():
    rotary = {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0}
    config = with_earlier_keys({"rope_parameters": rotary})
    assert config["rope_theta"] == 5e5
    assert config["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    assert with_earlier_keys(PhiConfig().to_dict())["partial_rotary_factor"] == 0.5


def test_layers_of_two_types_have_two_bases():
    config = with_earlier_keys(Gemma3TextConfig().to_dict())
    assert config["rope_theta"] == 1e6
    assert config["rope_local_base_freq"] == 1e4


def test_code_of_a_checkpoint_is_not_named():
    assert "auto_map" not in with_earlier_keys({"auto_map": {"AutoModel": "evil.Model"}})


def test_a_run_writes_a_card(tmp_path):
    from trainer.__main__ import main

    config = write_config(tmp_path, write_tiny_catalog(tmp_path / "catalog"), tmp_path / "run")
    assert main([str(config)]) == 0
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    for expected in ("# run\n", "Target: spe", "| domain | terms | share |", "## Licence"):
        assert expected in card
    assert "{" not in card
    assert yaml.safe_load(card.split("---\n")[1]) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["clustermix"],
    }
    block = card.partition("## Reproduce")[2].partition("## Licence")[0]
    lines = [line for line in block.splitlines() if line.startswith("    ")]
    settings = tomllib.loads("\n".join(lines))
    assert settings["target"] == "spe"
    assert settings["training"]["steps"] == 28
    assert str(tmp_path) not in card


def test_no_setting_leaves_the_block_of_the_card(tmp_path):
    hostile = 'x"\n\n# Title\n```\n<script>alert(1)</script>'
    mixture = {"names": [hostile], "targets": {hostile: 1.0}, "file": str(tmp_path)}
    config = tiny_config(tmp_path / "catalog", tmp_path / "run", mixture=mixture)
    lines = list(_settings(config))
    assert all(line.startswith("    ") and "\n" not in line for line in lines)
    settings = tomllib.loads("\n".join(lines))["mixture"]
    assert settings["names"] == [hostile]
    assert settings["targets"] == {hostile: 1.0}
    assert "file" not in settings
