"""What a person gets for a request that cannot be carried out: one sentence, exit code 2, no traceback."""

import json
import subprocess
import sys

import pytest

from tests.tiny_corpus import write_corpus

COMMAND = [sys.executable, "-m", "flows.cli"]


def clustermix(*arguments):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


def toml(value):
    """A plain mapping as TOML; enough for a test's config."""
    lines = [f"{key} = {json.dumps(item)}" for key, item in value.items() if not isinstance(item, dict | list) or key == "granularities"]
    for key, item in value.items():
        if isinstance(item, dict):
            lines += [f"[{key}]", *(f"{k} = {json.dumps(v)}" for k, v in item.items())]
        elif isinstance(item, list):
            for entry in item:
                lines += [f"[[{key}]]", *(f"{k} = {json.dumps(v)}" for k, v in entry.items())]
    return "\n".join(lines)


@pytest.fixture
def config(tmp_path):
    def write(**changes):
        settings = write_corpus(tmp_path, documents=8) | changes
        (tmp_path / "build.toml").write_text(toml(settings))
        return tmp_path / "build.toml"

    return write


def refused(done, *words):
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert any(line.startswith("clustermix: ") for line in done.stderr.splitlines())
    for word in words:
        assert word in done.stderr


def test_an_unknown_key(config):
    refused(clustermix("build", config(embed={"max_tokns": 3})), "embed.max_tokns: unknown key; did you mean max_tokens?")


def test_a_missing_config(tmp_path):
    refused(clustermix("build", tmp_path / "none.toml"), "none.toml: cannot be read")


def test_a_missing_corpus(config, tmp_path, prefect_home):
    refused(clustermix("build", config(source={"kind": "jsonl", "path": str(tmp_path / "none")})), str(tmp_path / "none"))


def test_an_empty_corpus(config, tmp_path, prefect_home):
    (tmp_path / "empty").mkdir()
    refused(clustermix("build", config(source={"kind": "jsonl", "path": str(tmp_path / "empty")})), str(tmp_path / "empty"))


def test_a_granularity_that_was_demanded_and_cannot_be(config, prefect_home):
    refused(clustermix("build", config(cluster={"granularities": [2, 4], "unsupported": "refuse"})), "4", "39")


def test_a_missing_target(config, tmp_path, prefect_home):
    refused(clustermix("build", config(targets=[{"name": "x", "path": str(tmp_path / "none")}])), "none")


def test_a_catalog_that_is_not_there(tmp_path):
    refused(clustermix("query", tmp_path, "SELECT 1"), "no catalog here")
    refused(clustermix("verify", tmp_path), "no catalog here")
    (tmp_path / "train.toml").write_text(f'catalog = "{tmp_path}"\nout = "{tmp_path}/run"\ntarget = "x"\n')
    refused(clustermix("train", tmp_path / "train.toml"), "no catalog here")
    refused(clustermix("train", tmp_path / "train.toml", "--set", "mixture.mixr=dga"), "mixture.mixr: unknown key; did you mean mixer?")


def test_help_lists_the_commands():
    done = clustermix("--help")
    assert done.returncode == 0
    for command in ("demo", "build", "query", "train", "report", "verify"):
        assert command in done.stdout


@pytest.fixture(scope="module")
def prefect_home(tmp_path_factory, prefect_server):
    """Commands in processes of their own talk to the tests' server, through the environment."""
