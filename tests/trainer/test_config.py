"""The config of a run: invalid settings, and the settings that a fingerprint covers."""

import subprocess
import sys
from pathlib import Path

import pytest

from data_catalog.format.manifest import fingerprint
from data_catalog.settings import UserError, load
from tests.helpers.repository import ROOT
from trainer.__main__ import main
from trainer.config import OLDER_SETTINGS, UNIDENTIFYING, Train
from trainer.mixers.dga import DGA_ETA
from trainer.mixture_config import WITHOUT_EFFECT, Mixture

LEAST = {"catalog": "c", "out": "o", "target": "t"}


@pytest.mark.system
def test_the_config_needs_no_torch() -> None:
    code = "import sys, trainer.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_settings_of_the_paper_are_one_line_each() -> None:
    """The defaults differ from the paper where it was measured to lose (docs/method.md)."""
    paper = {
        "prior": "even",
        "pull": 0.0,
        "repetition": 0.0,
        "kind": "hard",
        "scores": "clipped",
        "ema": 0.1,
        "update_every_steps": 100,
    }
    default = Train.model_validate(LEAST).mixture
    assert {key for key, value in paper.items() if getattr(default, key) != value} == paper.keys()
    mixture = Train.model_validate({**LEAST, "mixture": paper}).mixture
    assert (DGA_ETA[mixture.scores], mixture.discount, mixture.has_target_prior) == (1.5, 0, False)
    assert (mixture.basis_sequences, mixture.target_sequences) == (8, 32)


def test_the_discount_of_repeated_data_belongs_to_dga_and_its_replays() -> None:
    def discount_of(**mixture: object) -> float:
        return Train.model_validate({**LEAST, "mixture": mixture}).mixture.discount

    assert discount_of() == discount_of(mixer="replay", file="run") == 15
    assert discount_of(mixer="natural") == discount_of(repetition=0) == 0
    assert discount_of(mixer="static", target_share=0.5, repetition=4) == 4


def test_the_defaults_of_measuring_depend_on_the_scores_and_the_backend() -> None:
    def chosen(**mixture: object) -> tuple[str, str, bool]:
        found = Train.model_validate({**LEAST, "mixture": mixture}).mixture
        return found.backend, found.measure_on, found.error_aware

    assert chosen() == ("ghost", "batch", True)
    assert chosen(backend="finite_difference") == ("finite_difference", "batch", True)
    assert chosen(backend="exact") == ("exact", "probes", False)
    assert chosen(scores="clipped") == ("exact", "probes", False)
    assert chosen(mixer="doge") == ("exact", "probes", False)
    assert chosen(measure_on="probes") == ("ghost", "probes", True)
    assert chosen(backend="exact", error_aware=True) == ("exact", "probes", True)


def test_an_older_run_keeps_its_behaviour_and_its_fingerprint() -> None:
    new = Train.model_validate({**LEAST, "mixture": {"prior": "even", "kind": "hard"}})
    settings = new.model_dump(mode="json")
    for key in WITHOUT_EFFECT:  # as config.json of such a run is
        del settings["mixture"][key]
    del settings["data"]["as_if_tokens"], settings["data"]["draw_by"]
    for section, values in OLDER_SETTINGS.items():
        for key in values:
            del settings[section][key]
    older = Train.model_validate(settings)
    assert older.mixture.discount == older.mixture.pull == 0
    assert older.mixture.prior == "even"
    assert (new.data.draw_by, older.data.draw_by) == ("tokens", "sequences")
    assert (new.optimizer.decay_embeddings, older.optimizer.decay_embeddings) == (False, True)
    covered = older.model_dump(mode="json", exclude=UNIDENTIFYING)
    for key in WITHOUT_EFFECT:
        del covered["mixture"][key]
    del covered["data"]["as_if_tokens"], covered["data"]["draw_by"]
    del covered["evaluation"]["choices"], covered["data"]["cache_megabytes"]
    del covered["training"]["shard_processes"]
    for section, values in OLDER_SETTINGS.items():
        for key in values:
            del covered[section][key]
    assert older.fingerprint() == fingerprint("train", 2, covered)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("mixture.etaa=1", "mixture.etaa: unknown key. Did you mean eta"),
        ("mixture.ema=0", "mixture.ema"),
        ("mixture.mixer=dog", "mixture.mixer"),
        ("training.steps=0", "training.steps"),
        ("mixture.odm_form=square", "mixture.odm_form"),
    ],
)
def test_wrong_settings_are_refused_by_name(override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load(Train, None, [*(f"{key}={value}" for key, value in LEAST.items()), override])


@pytest.mark.parametrize(
    "unsupported",
    [
        {"backend": "ghost", "scores": "raw"},
        {"backend": "finite_difference", "scores": "raw"},
        {"preconditioned": True},
    ],
)
def test_only_the_exact_backend_leaves_a_member_out_of_the_sum(
    unsupported: dict[str, object],
) -> None:
    Mixture.model_validate({"mixer": "doge", **unsupported})
    Mixture.model_validate({"mixer": "doge", "toward": "members"})
    with pytest.raises(ValueError, match=r'toward = "members".*Set backend = "exact"'):
        Mixture.model_validate({"mixer": "doge", "toward": "members", **unsupported})


def test_the_measured_steps_are_part_of_an_interval_that_is_measured_on_its_batches() -> None:
    batch = {"measure_on": "batch", "backend": "ghost"}
    Mixture.model_validate({"measure_steps": 4, "update_every_steps": 4, **batch})
    Mixture.model_validate({"measure_steps": 400, **batch})  # the intervals are long enough
    with pytest.raises(ValueError, match=r"measure_steps is 5, but .* every 4 steps"):
        Mixture.model_validate({"measure_steps": 5, "update_every_steps": 4, **batch})
    with pytest.raises(ValueError, match=r'measure_steps = 2 needs measure_on = "batch"'):
        Mixture.model_validate({"measure_steps": 2, "backend": "exact"})


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
        fingerprint_of(data={"draw_by": "sequences"}),
        fingerprint_of(mixture={"probes": "next"}),
        fingerprint_of(mixture={"backend": "exact"}),
        fingerprint_of(mixture={"measure_steps": 2}),
        fingerprint_of(training={"steps": 7}),
        fingerprint_of(model={"layers": 5}),
    ]
    assert len(set(different)) == len(different)


def test_the_form_of_odm_counts_for_odm_alone_and_older_runs_keep_theirs() -> None:
    def fingerprint_of(mixer: str, **changed: str) -> str:
        mixture = {"mixer": mixer, **changed}
        return Train.model_validate({**LEAST, "mixture": mixture}).fingerprint()

    assert fingerprint_of("ado") == fingerprint_of("ado", odm_form="exponential")
    assert fingerprint_of("odm") != fingerprint_of("odm", odm_form="exponential")
    complete = Mixture(mixer="odm")
    assert complete.odm_form == "linear"
    older = {key: value for key, value in complete if key not in WITHOUT_EFFECT}
    assert Mixture.model_validate(older).odm_form == "exponential"


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
