"""Every command refuses a damaged catalog or run.

The exit code is 2, and the message names the file and the key.
"""

import json
import shutil

import pytest

from tests.flows.cli.test_main import clustermix
from tests.helpers.manifests import change_manifest
from tests.helpers.tiny_run import write_run
from tests.helpers.tiny_training import write_config

CATALOG_COMMANDS = {
    "verify": ("verify", "CATALOG"),
    "query": ("query", "CATALOG", "SELECT 1"),
    "domains": ("domains", "CATALOG"),
    "quality": ("quality", "CATALOG", "--preset", "c4"),
    "report": ("report", "CATALOG", "--out", "OUT"),
    "rebuild": ("rebuild", "CATALOG"),
    "export catalog": ("export", "catalog", "CATALOG", "OUT"),
    "export documents": ("export", "documents", "CATALOG", "OUT"),
    "fetch catalog": ("fetch", "catalog", "CATALOG", "OUT"),
    "add": ("add", "CATALOG", "ADDITION"),
    "train": ("train", "TRAINING", "--dry-run"),
}
RUN_COMMANDS = {
    "report": ("report", "RUN", "--out", "OUT"),
    "query": ("query", "CATALOG", "SELECT 1", "--runs", "RUN"),
    "export documents": (
        *("export", "documents", "CATALOG", "OUT", "--weights", "RUN", "--tokens", "100"),
    ),
    "replay": ("replay", "RUN", "--out", "OUT", "--dry-run"),
    "eval": ("eval", "RUN", "--target", "goal"),
}


@pytest.fixture
def places(built, tmp_path):
    """A copy of a catalog, a run, and configs that name the catalog."""
    catalog = tmp_path / "catalog"
    ignored = shutil.ignore_patterns("work", "report.html")
    shutil.copytree(built[0], catalog, ignore=ignored)
    run = write_run(tmp_path / "run")
    (run / "model").mkdir()
    addition = tmp_path / "addition.toml"
    addition.write_text(f'[source]\nkind = "text"\npath = "{tmp_path}"\n')
    training = write_config(tmp_path, catalog, tmp_path / "training")
    return {
        "CATALOG": catalog,
        "RUN": run,
        "ADDITION": addition,
        "TRAINING": training,
        "OUT": tmp_path / "out",
    }


def refused(command, places, *named):
    done = clustermix(*(places.get(word, word) for word in command))
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    message = "".join(done.stderr.split())  # a long line is wrapped
    assert [text for text in named if text not in message] == []


@pytest.mark.parametrize("name", CATALOG_COMMANDS)
def test_a_damaged_catalog_is_refused(places, name):
    change_manifest(places["CATALOG"], granularities="many")
    refused(CATALOG_COMMANDS[name], places, "catalog/catalog.json", "granularities")


@pytest.mark.parametrize("name", RUN_COMMANDS)
def test_a_damaged_run_is_refused(places, name):
    path = places["RUN"] / "config.json"
    record = json.loads(path.read_text())
    del record["config"]["training"]["sequence_tokens"]
    path.write_text(json.dumps(record))
    refused(RUN_COMMANDS[name], places, "run/config.json", "config.training.sequence_tokens")


@pytest.mark.parametrize("change", ["missing", "distorted"])
def test_verify_refuses_every_damaged_key(places, change):
    path = places["CATALOG"] / "catalog.json"
    whole = json.loads(path.read_text())
    for key in whole:
        content = {name: value for name, value in whole.items() if name != key}
        if change == "distorted":
            content[key] = {"of": ["another", "type"]} if key not in ("config",) else 3
        path.write_text(json.dumps(content))
        refused(("verify", "CATALOG"), places, "catalog/catalog.json", f":{key}")
