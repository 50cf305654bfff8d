"""Exported models in transformers 4.57, which is installed into a folder of its own."""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from data_catalog.format.files import open_files
from tests.helpers.faults import Wrong
from tests.helpers.repository import ROOT
from tests.helpers.tiny_catalog import VOCABULARY, write_tiny_catalog
from tests.helpers.tiny_models import tiny_model
from trainer.config import Model
from trainer.distributed import Team
from trainer.model.model import build_model
from trainer.state.export import context_tokens, export_model

pytestmark = pytest.mark.faults(
    "Exported models in transformers 4.57",
    tried="Models of seven kinds, exported by a run, then opened with transformers 5 and with "
    "transformers 4.57.3 in an environment of its own.",
    expected="Both read the folder without a warning about its keys. Tokenizer, logits and "
    "generated tokens are equal, and generation ends at the catalog's end-of-text.",
)
PACKAGES = ("transformers==4.57.3", "tokenizers==0.22.1", "huggingface_hub==0.36.0")
KINDS = ("preset", "llama-500k", "llama-scaled", "gpt2", "qwen2", "qwen3", "gpt_neox")
PROMPT = (9, 10, 11)
WORDS = 61  # token ids of the models in tests/helpers/tiny_models.py


@pytest.fixture(scope="session")
def earlier(tmp_path_factory):
    """A folder with transformers 4.57, to be put before the installed packages."""
    folder = tmp_path_factory.mktemp("transformers-4")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, *PACKAGES],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    if done.returncode:
        pytest.skip("transformers 4.57 cannot be installed here: " + done.stderr[-200:])
    return folder


@pytest.fixture(scope="module", params=KINDS)
def answers(request, tmp_path_factory, earlier):
    """The outputs of transformers 5 and 4.57 for the same exported folder."""
    folder = tmp_path_factory.mktemp(request.param)
    files = open_files(write_tiny_catalog(folder / "catalog"), sequence_tokens=12)
    start = folder / "start"
    if request.param == "preset":
        model = build_model(Model(layers=2, hidden_size=32, heads=2), VOCABULARY, 0, 12, 0)
        with torch.no_grad():  # random weights with tied embeddings repeat the last token
            for parameter in model.model.layers.parameters():
                parameter.mul_(30)
    else:
        _start(request.param).save_pretrained(start)
        model = build_model(Model(path=str(start)), WORDS, 0, 12, 0)
    end_after(model, 3)
    team = Team(0, 1, torch.device("cpu"), 0)
    export_model(folder / "model", model, files, context_tokens(model, 12), "# card\n", team)
    return [ask(folder / "model", paths) for paths in ([ROOT], [earlier, ROOT])]


def _start(kind):
    if not kind.startswith("llama"):
        return tiny_model(kind)
    rotary = {"rope_type": "default", "rope_theta": 500_000.0}
    if kind == "llama-scaled":
        rotary = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        rope_parameters=rotary,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)


def end_after(model, tokens):
    """Exchange two token embeddings, so that greedy generation gives end-of-text after `tokens`."""
    with torch.no_grad():
        generated = model.generate(
            torch.tensor([PROMPT]), do_sample=False, max_new_tokens=tokens, eos_token_id=VOCABULARY
        )[0]
        last = int(generated[-1])
        tables = {id(t): t for t in (model.get_input_embeddings(), model.get_output_embeddings())}
        weights = {id(table.weight): table.weight for table in tables.values()}
        for weight in weights.values():
            weight[[0, last]] = weight[[last, 0]].clone()


def ask(folder, paths):
    words = [sys.executable, ROOT / "tests/helpers/open_model.py", folder, *map(str, PROMPT)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "rope" not in done.stderr.lower(), done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_tokenizers_agree(answers):
    for answer in answers:
        if answer["end"] != 0 or answer["encoded"] != list(PROMPT) or answer["context"] > 16:
            raise Wrong(answer)
    assert answers[1]["version"].startswith("4.57")


def test_logits_agree(answers):
    found = [torch.tensor(answer["logits"]) for answer in answers]
    if not torch.allclose(*found, atol=1e-5):
        raise Wrong(float((found[0] - found[1]).abs().max()))
    assert answers[0]["dtype"] == answers[1]["dtype"]


def test_generation_ends_at_end_of_text(answers):
    for answer in answers:
        generated = answer["generated"]
        if 0 not in generated or generated.index(0) != len(generated) - 1:
            raise Wrong(generated)
    if (
        answers[0]["generated"] != answers[1]["generated"]
        or answers[0]["text"] != answers[1]["text"]
    ):
        raise Wrong(answers)
