"""The config of a run: invalid settings, and the settings that a fingerprint covers."""

import subprocess
import sys
from pathlib import Path

import pytest

from data_catalog.settings import UserError, load
from tests.helpers.repository import ROOT
from trainer.__main__ import main
from trainer.config import Train
from trainer.mixers.dga import DGA_ETA

LEAST = {"catalog": "c", "out": "o", "target": "t"}


@pytest.mark.system
def test_the_config_needs_no_torch() -> None:
    code = "import sys, trainer.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_defaults_are_the_published_ones() -> None:
    mixture = Train.model_validate(LEAST).mixture
    assert (DGA_ETA[mixture.scores], mixture.ema, mixture.scores, mixture.update_every_steps) == (
        1.5,
        0.1,
        "clipped",
        100,
    )
    assert (mixture.basis_sequences, mixture.target_sequences) == (8, 32)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("mixture.etaa=1", "mixture.etaa: unknown key. Did you mean eta"),
        ("mixture.ema=0", "mixture.ema"),
        ("mixture.mixer=dog", "mixture.mixer"),
        ("training.steps=0", "training.steps"),
    ],
)
def test_wrong_settings_are_refused_by_name(override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load(Train, None, [*(f"{key}={value}" for key, value in LEAST.items()), override])


def test_a_loaded_model_has_its_own_sizes() -> None:
    with pytest.raises(ValueError, match=r"hidden_size.*path"):
        Train.model_validate({**LEAST, "model": {"path": "somewhere", "layers": 3}})


def test_the_fingerprint_covers_only_settings_that_change_results() -> None:
    def fingerprint_of(**changed: object) -> str:
        return Train.model_validate({**LEAST, **changed}).fingerprint()

    assert fingerprint_of() == fingerprint_of(
        out="elsewhere", catalog="moved", checkpoint={"every_steps": 3}
    )
    different = [
        fingerprint_of(),
        fingerprint_of(seed=1),
        fingerprint_of(target="u"),
        fingerprint_of(mixture={"eta": 0.5}),
        fingerprint_of(training={"steps": 7}),
        fingerprint_of(model={"layers": 5}),
    ]
    assert len(set(different)) == 6


def test_an_invalid_config_gives_a_message_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # the run's folder is relative
    assert main([str(tmp_path / "missing.toml")]) == 2
    assert "missing.toml: cannot be read" in capsys.readouterr().err
    overrides = [
        argument for key, value in LEAST.items() for argument in ("--set", f"{key}={value}")
    ]
    config = tmp_path / "run.toml"
    config.write_text("")
    assert main([str(config), *overrides]) == 2
    assert "no catalog here" in capsys.readouterr().err
