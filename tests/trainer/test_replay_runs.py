"""Configs of runs that follow the weights of another.

The mixer tests check that the weights are followed.
"""

import json

import pyarrow.parquet as pq
import pytest

from data_catalog.errors import UserError
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_run import tiny_run_record
from tests.helpers.tiny_training import tiny_config
from trainer.loop import train
from trainer.mixers.replay import replaying

pytestmark = pytest.mark.system  # whole trainings, or models exported to other runtimes


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """Return a short run of a mixer that scores the batch, which `replay` does not do."""
    folder = tmp_path_factory.mktemp("followed")
    mixture = {
        "update_every_steps": 3,
        "measure_on": "batch",
        "backend": "ghost",
        "scores": "normalised",
    }
    config = tiny_config(
        write_tiny_catalog(folder / "catalog"),
        folder / "small",
        mixture=mixture,
        training={"steps": 9},
        evaluation={"every_steps": 0, "basis": False, "domains": False},
        checkpoint={"every_steps": 0},
    )
    assert train(config)
    return config


def weights(run):
    return pq.read_table(
        run / "weights.parquet", columns=["stage", "first_sequence", "sampling"]
    ).to_pylist()


def test_a_larger_model_has_the_draws_of_the_smaller_one(followed, tmp_path):
    config = replaying(followed.out, None, tmp_path / "large", ["model.hidden_size=64"])
    assert (config.mixture.mixer, config.mixture.file, config.mixture.update_every_steps) == (
        "replay",
        followed.out,
        3,
    )
    assert (config.model.hidden_size, followed.model.hidden_size) == (64, 32)
    # The record has the precision that `auto` chose.
    chosen = {"precision": "float32"}
    assert config.training == followed.training.model_copy(update=chosen)
    assert train(config)
    assert weights(config.out) == weights(followed.out)
    assert pq.read_table(config.out / "usage.parquet") == pq.read_table(
        followed.out / "usage.parquet"
    )


def test_a_config_replaces_everything_but_the_mixture(followed, tmp_path):
    file = tmp_path / "large.toml"
    file.write_text(
        f'catalog = "{followed.catalog}"\nout = "elsewhere"\ntarget = "spe"\n'
        '[training]\nsteps = 5\n[mixture]\nmixer = "dga"\n'
    )
    config = replaying(followed.out, file, tmp_path / "large", ["training.steps=6"])
    assert (config.mixture.mixer, config.mixture.file, config.out, config.training.steps) == (
        "replay",
        followed.out,
        tmp_path / "large",
        6,
    )


def test_runs_that_cannot_be_followed_are_refused(followed, tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        replaying(tmp_path, None, tmp_path / "x")
    (tmp_path / "config.json").write_text(json.dumps(tiny_run_record()))
    with pytest.raises(UserError, match=r"weights\.parquet"):
        replaying(tmp_path, None, tmp_path / "x")
    with pytest.raises(UserError, match=r"out .*: "):
        replaying(followed.out, None, followed.out)
