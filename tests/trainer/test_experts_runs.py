"""Runs of mixtures of experts resume to the bit, with the biases of their routers."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.tiny_catalog import VOCABULARY, write_tiny_catalog
from tests.helpers.tiny_experts import tiny_experts
from tests.helpers.tiny_training import records, tiny_config, without_clock
from trainer.config import Train
from trainer.loop import train

pytestmark = pytest.mark.system

STEPS, RESUMED_AT = 8, 4
SIZES = {"vocab_size": VOCABULARY, "max_position_embeddings": 16}
FINISHED = ("model", "usage.parquet", "weights.json", "checksums.json")


def run_config(folder: Path, architecture: str, **training: object) -> Train:
    """Return the config of a run that begins with the weights of a mixture of experts."""
    write_tiny_catalog(folder / "catalog")
    model = tiny_experts(architecture, **SIZES)
    model.save_pretrained(folder / "experts")
    shutil.copytree(folder / "catalog" / "tokenizer", folder / "experts", dirs_exist_ok=True)
    return tiny_config(
        folder / "catalog",
        folder / "run",
        model={"path": str(folder / "experts"), "hidden_size": None, "layers": None, "heads": None},
        mixture={"mixer": "natural"},
        training={"steps": STEPS, **training},
        checkpoint={"every_steps": RESUMED_AT, "keep": 9},
        evaluation={"every_steps": 0},
    )


def resumed(config: Train, folder: Path) -> Train:
    """Return the config of a copy of a finished run that resumes from its first checkpoint."""
    shutil.copytree(config.out, folder)
    for name in FINISHED:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    first, *later = sorted((folder / "checkpoints").iterdir())
    assert int(first.name.rpartition("-")[2]) == RESUMED_AT
    for checkpoint in later:
        shutil.rmtree(checkpoint)
    return config.model_copy(update={"out": folder})


def biases(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: values
        for name, values in load_file(folder / "model" / "model.safetensors").items()
        if name.endswith("e_score_correction_bias")
    }


@pytest.mark.parametrize(
    ("architecture", "compiled"),
    [
        ("deepseek_v3", False),
        ("olmoe", False),
        pytest.param("deepseek_v3", True, marks=pytest.mark.slow),
        pytest.param("olmoe", True, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_of_experts_ends_like_an_undisturbed_one(
    tmp_path: Path, architecture: str, compiled: bool
) -> None:
    config = run_config(tmp_path, architecture, compile=compiled)
    assert train(config)
    again = resumed(config, tmp_path / "again")
    assert train(again)
    for kind in ("train", "eval"):
        one, other = (without_clock(records(run.out, kind)) for run in (config, again))
        assert one == other
    weights = [load_file(run.out / "model" / "model.safetensors") for run in (config, again)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    found = biases(config.out)
    assert bool(found) == (architecture == "deepseek_v3")
    begun = tiny_experts(architecture, **SIZES).state_dict()
    assert all(not torch.equal(values, begun[name]) for name, values in found.items())
