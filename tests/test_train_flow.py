"""The launcher: `clustermix train` from a config to a run's folder and page."""

import json

import pytest

from data_catalog.errors import UserError
from tests.test_cli import clustermix, refused
from tests.tiny_catalog import ENCODER, write_tiny_catalog
from tests.tiny_training import write_config


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return write_tiny_catalog(tmp_path_factory.mktemp("catalog"))


def test_a_run_and_its_page(catalog, tmp_path, prefect_server):
    config = write_config(tmp_path, catalog, tmp_path / "run")
    done = clustermix("train", config, "--set", "training.steps=6")
    assert done.returncode == 0, done.stderr
    assert "train dga: 6 of 6" in done.stderr
    assert done.stdout.strip() == str(tmp_path / "run" / "report.html")
    assert "<html" in (tmp_path / "run" / "report.html").read_text()
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_what_can_be_seen_at_once_is_refused_before_a_process_starts(catalog, tmp_path, prefect_server):
    from flows.train import train

    config = write_config(tmp_path, catalog, tmp_path / "run")
    with pytest.raises(UserError, match=r"target art: not in .*; targets there: "):
        train(config, ["target=art"])
    with pytest.raises(UserError, match=r"mixture\.level 3: .* has levels"):
        train(config, ["mixture.level=3"])


def test_a_target_of_another_encoder_is_refused_by_the_trainer(tmp_path, prefect_server):
    catalog = write_tiny_catalog(tmp_path / "catalog")
    described = catalog / "targets" / "spe" / "target.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | {"encoder": {**ENCODER, "sha256": "01"}}))
    done = clustermix("train", write_config(tmp_path, catalog, tmp_path / "run"))
    refused(done, "train dga: 0 of 28", "shares no encoder with the catalog")
