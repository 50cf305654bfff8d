"""What a person gets for a request that cannot be carried out: one sentence, exit code 2, no traceback; and for other ends."""

import json
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest

from flows.cli.main import main
from tests.helpers.repository import ROOT
from tests.helpers.tiny_corpus import write_corpus

COMMAND = [sys.executable, "-m", "flows.cli.main"]
HEAVY = {
    "torch",
    "prefect",
    "transformers",
    "sentence_transformers",
    "faiss",
    "sklearn",
    "datasets",
}


def clustermix(*arguments):
    """What the installed command does, in this process."""
    said, complained = StringIO(), StringIO()
    with (  # noqa: PT012
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(said),
        redirect_stderr(complained),
        pytest.raises(SystemExit) as end,
    ):
        patch.setattr(sys, "argv", ["clustermix", *map(str, arguments)])
        main()
    return subprocess.CompletedProcess(
        arguments, end.value.code, said.getvalue(), complained.getvalue()
    )


def toml(value):
    """A plain mapping as TOML; enough for a test's config."""
    lines = [
        f"{key} = {json.dumps(item)}"
        for key, item in value.items()
        if not isinstance(item, dict | list) or key == "granularities"
    ]
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
    refused(
        clustermix("build", config(embed={"max_tokns": 3})),
        "embed.max_tokns: unknown key; did you mean max_tokens?",
    )


def test_a_missing_config(tmp_path):
    refused(clustermix("build", tmp_path / "none.toml"), "none.toml: cannot be read")


def test_a_missing_corpus(config, tmp_path, prefect_server):
    refused(
        clustermix("build", config(source={"kind": "jsonl", "path": str(tmp_path / "none")})),
        str(tmp_path / "none"),
    )


def test_an_empty_corpus(config, tmp_path, prefect_server):
    (tmp_path / "empty").mkdir()
    refused(
        clustermix("build", config(source={"kind": "jsonl", "path": str(tmp_path / "empty")})),
        str(tmp_path / "empty"),
    )


def test_a_granularity_that_was_demanded_and_cannot_be(config, prefect_server):
    refused(
        clustermix("build", config(cluster={"granularities": [2, 4], "unsupported": "refuse"})),
        "4",
        "39",
    )


def test_a_missing_target(config, tmp_path, prefect_server):
    refused(
        clustermix("build", config(targets=[{"name": "x", "path": str(tmp_path / "none")}])), "none"
    )


def test_a_catalog_that_is_not_there(tmp_path):
    refused(clustermix("query", tmp_path, "SELECT 1"), "no catalog here")
    refused(clustermix("verify", tmp_path), "no catalog here")
    (tmp_path / "train.toml").write_text(
        f'catalog = "{tmp_path}"\nout = "{tmp_path}/run"\ntarget = "x"\n'
    )
    refused(clustermix("train", tmp_path / "train.toml"), "no catalog here")
    refused(
        clustermix("train", tmp_path / "train.toml", "--set", "mixture.mixr=dga"),
        "mixture.mixr: unknown key; did you mean mixer?",
    )


def test_words_that_are_none_of_a_few(config):
    done = clustermix("build", config(), "--set", "quality.preset=gofer")
    refused(done, "quality.preset: found 'gofer'", "did you mean gopher?")
    assert len(done.stderr.splitlines()) == 1


def test_names_that_a_catalog_does_not_have(built, tmp_path):
    (tmp_path / "train.toml").write_text(
        f'catalog = "{built[0]}"\nout = "{tmp_path}/run"\ntarget = "spcae"\n'
    )
    refused(clustermix("train", tmp_path / "train.toml", "--dry-run"), "target spcae: not in")
    mistyped = built[0].with_name("catalgo")
    refused(clustermix("domains", mistyped), "no catalog here", f"did you mean {built[0].name}?")
    refused(
        clustermix("query", built[0], "SELECT tokns FROM domains"),
        'Referenced column "tokns" not found',
        '"tokens"',
    )
    refused(clustermix("query", built[0], "FROM domans"), 'Did you mean "domains"?')
    refused(clustermix("query", built[0], "FROM runs"), "name their folders (--runs")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["quer"],
            "clustermix: no such command 'quer'. Did you mean 'query'? see `clustermix --help`",
        ),
        (["query"], "clustermix: missing argument 'CATALOG'; see `clustermix query --help`"),
        (
            ["query", "--jsn"],
            "clustermix: no such option: --jsn (Possible options: --json); see `clustermix query --help`",
        ),
        (
            ["build", "x", "--runner", "thread"],
            "clustermix: invalid value for '--runner': 'thread' is not one of 'threads', 'processes', 'dask', 'ray'; did you mean threads? "
            "see `clustermix build --help`",
        ),
    ],
)
def test_a_command_line_that_is_none(words, sentence):
    done = clustermix(*words)
    assert (done.returncode, done.stderr.strip(), done.stdout) == (2, sentence, "")


@pytest.mark.parametrize("before", [True, False])
def test_a_failure_has_a_traceback_only_if_it_is_asked_for(built, before):
    words = ["report", built[0], "--out", built[0] / "catalog.json" / "page.html"]
    done = clustermix(*words)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("clustermix: failed: ")
    assert done.stderr.endswith("; run again with --debug for the traceback\n")
    told = clustermix(*(["--debug", *words] if before else [*words, "--debug"]))
    assert told.returncode == 1
    assert "Traceback (most recent call last)" in told.stderr


def test_a_file_name_cannot_talk_to_the_terminal(tmp_path):
    done = clustermix("plan", tmp_path / "\x1b[31mred")
    assert done.returncode == 2
    assert "\x1b" not in done.stderr


def test_ctrl_c_is_one_line(tmp_path):
    waits = tmp_path / "config.toml"
    os.mkfifo(waits)

    def listen():  # a job in the background of a shell without job control does not hear Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)

    process = subprocess.Popen(
        [*COMMAND, "plan", str(waits)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen,  # noqa: PLW1509
    )
    with waits.open("w"):  # from here on the command waits for the text of its config
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "clustermix: interrupted\n")


def test_the_version():
    assert clustermix("--version").stdout == "clustermix 0.1.0\n"


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["--help"], HEAVY | {"pyarrow", "numpy", "duckdb", "pydantic"}),
        (["query", "--help"], HEAVY | {"pyarrow", "numpy", "duckdb"}),
        (["query", "CATALOG", "SELECT 1"], HEAVY),
        (["domains", "CATALOG"], HEAVY),
    ],
)
def test_a_quick_command_waits_for_nothing_it_does_not_need(built, words, absent):
    words = [str(built[0]) if word == "CATALOG" else word for word in words]
    code = f"""
import sys
sys.argv = ["clustermix", *{words!r}]
from flows.cli.main import main
try:
    main()
except SystemExit as end:
    print("LOADED", *sys.modules)
    raise
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.partition("LOADED")[2].split())
    assert "typer" in loaded
    assert not loaded & absent
