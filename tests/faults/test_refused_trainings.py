"""Trainings that cannot work: each is refused by the preview and by the trainer at once."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models
from transformers import GPT2Config, LlamaConfig, LlamaForCausalLM

from data_catalog.errors import UserError
from tests.faults.test_refused_requests import REQUESTS, refused
from tests.helpers.faults import Wrong
from tests.helpers.tiny_catalog import VOCABULARY, write_tiny_catalog
from tests.helpers.tiny_training import tiny_config, write_config
from trainer.__main__ import main
from trainer.loop import train
from trainer.preview import preview

pytestmark = REQUESTS


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return write_tiny_catalog(tmp_path_factory.mktemp("requests") / "catalog")


def llama(folder: Path, end: int | None = 0, **sizes: int) -> str:
    """Write a small model without a tokenizer, and return its folder."""
    sizes = {"vocab_size": VOCABULARY, "max_position_embeddings": 16, **sizes}
    config = LlamaConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=end,
        **sizes,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def gpt2(folder: Path) -> str:
    GPT2Config(n_positions=8, vocab_size=VOCABULARY, n_embd=8, n_layer=1, n_head=2).save_pretrained(
        folder
    )
    return str(folder / "config.json")


def other_tokenizer(folder: Path) -> str:
    path = llama(folder)
    words = {f"x{i}": i for i in range(VOCABULARY)}
    Tokenizer(models.WordLevel(words, unk_token="x0")).save(str(folder / "tokenizer.json"))
    return path


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


CASES = {  # changes of the config, given a folder, and what the message says
    "a model with few positions": (
        lambda at: {"model": {"path": llama(at / "m", max_position_embeddings=8)}},
        ("model.path", "reads 8 tokens", "training.sequence_tokens is 16"),
    ),
    "GPT-2 with few positions": (
        lambda at: {"model": {"path": gpt2(at / "m")}},
        ("model.path", "reads 8 tokens"),
    ),
    "a model with few embeddings": (
        lambda at: {"model": {"path": llama(at / "m", vocab_size=VOCABULARY - 1)}},
        ("model.path", "63 token embeddings", "needs 64"),
    ),
    "a model with another tokenizer": (
        lambda at: {"model": {"path": other_tokenizer(at / "m")}},
        ("model.path", "another tokenizer"),
    ),
    "a model with another end-of-text": (
        lambda at: {"model": {"path": llama(at / "m", end=2)}},
        ("model.path", "end-of-text is token 2"),
    ),
    "no model": (
        lambda at: {"model": {"path": str(at / "none")}},
        ("model.path", "no such file or folder"),
    ),
    "a model of an unknown kind": (
        lambda at: {
            "model": {"path": str(write(at / "m/config.json", '{"model_type": "x"}').parent)}
        },
        ("model.path", "no causal language model"),
    ),
    "a reference with few positions": (
        lambda at: {
            "mixture": {
                "mixer": "doremi",
                "reference": llama(at / "m", max_position_embeddings=8),
            }
        },
        ("mixture.reference", "reads 8 tokens"),
    ),
    "no reference": (
        lambda at: {"mixture": {"mixer": "doremi", "reference": str(at / "none")}},
        ("mixture.reference", "no such file or folder"),
    ),
    "a preset with odd heads": (
        lambda _: {"model": {"heads": 3}},
        ("model.hidden_size 32", "3 heads"),
    ),
    "no target of this name": (lambda _: {"target": "spx"}, ("target", "spx")),
    "no level of this size": (lambda _: {"mixture": {"level": 5}}, ("level", "5")),
    "no evaluation target": (lambda _: {"evaluation": {"targets": ["none"]}}, ("none",)),
    "no such basis distribution": (lambda _: {"mixture": {"names": ["none"]}}, ("none",)),
    "no such start": (lambda _: {"mixture": {"start": "none"}}, ("none",)),
    "no table of weights": (
        lambda at: {"mixture": {"mixer": "static", "file": str(at / "none.csv")}},
        ("none.csv",),
    ),
    "no answers": (lambda _: {"mixture": {"objective": "answer"}}, ("target spe", "form")),
    "no questions": (lambda _: {"mixture": {"objective": "choices"}}, ("target spe", "form")),
    "no such version": (lambda _: {"data": {"version": 9}}, ("version", "9")),
    "too many draws": (lambda _: {"data": {"max_epochs": 0.1}}, ("data.max_epochs",)),
    "no budgets": (lambda at: {"data": {"budgets": str(at / "none.json")}}, ("none.json",)),
    "few tokens per domain": (
        lambda _: {"data": {"tokens_per_domain": 3}},
        ("data.tokens_per_domain",),
    ),
    "a folder of other files": (
        lambda at: {"out": str(write(at / "thesis/chapter.tex", "x").parent)},
        ("out", "chapter.tex", "not a run"),
    ),
    "a folder of logs and other files": (
        lambda at: {
            "out": str(write(write(at / "job/slurm-1.out", "x").with_name("notes.md"), "x").parent)
        },
        ("out", "notes.md", "not a run"),
    ),
    "a folder of a model": (lambda at: {"out": llama(at / "m")}, ("config.json",)),
    "a file in place of the folder": (
        lambda at: {"out": str(write(at / "x.txt", "x"))},
        ("x.txt",),
    ),
    "no catalog": (lambda at: {"catalog": str(at / "none")}, ("none",)),
}


@pytest.mark.parametrize("case", CASES)
def test_preview_and_trainer_refuse_it(catalog, tmp_path, capsys, case):
    change, words = CASES[case]
    changes = change(tmp_path)
    config = tiny_config(catalog, tmp_path / "run").model_dump(mode="json", exclude_none=True)
    for name, value in changes.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    if "path" in config["model"]:
        config["model"] = {"path": config["model"]["path"]}
    before = sorted(tmp_path.rglob("*"))
    parsed = tiny_config(catalog, tmp_path / "run").model_validate(config)
    with pytest.raises(UserError) as error:
        preview(parsed)
    assert not [word for word in words if word not in str(error.value)], str(error.value)
    assert sorted(tmp_path.rglob("*")) == before

    overrides = [f"{name}={json.dumps(value)}" for name, value in flat(config).items()]
    path = write(tmp_path / "train.toml", "")
    code = main([str(path), *(word for override in overrides for word in ("--set", override))])
    said = capsys.readouterr().err
    if code == 0:
        raise Wrong(f"{case} was trained")
    assert code == 2, said
    assert not [word for word in words if word not in said], said
    assert sorted(tmp_path.rglob("*")) == sorted([*before, path])


def flat(tree, prefix=""):
    found = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def test_the_command_line_refuses_it_too(catalog, tmp_path):
    model = llama(tmp_path / "m", max_position_embeddings=8)
    path = write_config(tmp_path, catalog, tmp_path / "run")
    path.write_text(
        path.read_text().replace("hidden_size = 32\nlayers = 2\nheads = 2", f'path = "{model}"')
    )
    refused(("model.path", "reads 8 tokens"), "train", path, "--dry-run")
    assert not (tmp_path / "run").exists()
    refused(("this is a training config",), "build", path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("without", ["align", "validation"])
def test_a_target_without_a_split_is_refused(tmp_path, without):
    root = write_tiny_catalog(tmp_path / "catalog")
    path = root / "targets" / "spe" / "documents.parquet"
    table = pq.read_table(path)
    splits = ["test" if name == without else name for name in table["split"].to_pylist()]
    place = table.schema.get_field_index("split")
    pq.write_table(table.set_column(place, "split", pa.array(splits)), path)
    config = tiny_config(root, tmp_path / "run")
    with pytest.raises(UserError, match=f"target spe: its {without} split is empty"):
        preview(config)


def test_a_distribution_without_sequences_is_refused(tmp_path):
    root = write_tiny_catalog(tmp_path / "catalog", (9, 9, 0, 9, 9, 9, 9, 9))
    with pytest.raises(UserError, match=r"distribution spe at level 8: .* without training"):
        preview(tiny_config(root, tmp_path / "run"))


def test_fewer_sequences_than_a_batch_are_no_fault(tmp_path):
    """They are drawn again, and the preview says how often."""
    root = write_tiny_catalog(tmp_path / "catalog", (1,) * 8)
    training = {"batch_sequences": 60, "steps": 6, "micro_batch_sequences": 60}
    config = tiny_config(root, tmp_path / "run", training=training)
    if preview(config).members[0].epochs < 3:
        raise Wrong(str(preview(config).members))
    assert train(config)


def test_a_folder_with_a_log_is_used(catalog, tmp_path):
    log = write(tmp_path / "run" / "slurm-123.out", "Starting\n")
    config = tiny_config(catalog, tmp_path / "run", training={"steps": 6})
    preview(config)
    assert train(config)
    if log.read_text() != "Starting\n":
        raise Wrong(log.read_text())
