"""Exit codes and error messages of the command line.

An invalid request gives one sentence, exit code 2 and no traceback.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest

from flows.cli import failures
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
    """Run the `clustermix` command in this process."""
    stdout, stderr = StringIO(), StringIO()
    with (  # noqa: PT012
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(stdout),
        redirect_stderr(stderr),
        pytest.raises(SystemExit) as end,
    ):
        patch.setattr(sys, "argv", ["clustermix", *map(str, arguments)])
        main()
    return subprocess.CompletedProcess(
        arguments, end.value.code, stdout.getvalue(), stderr.getvalue()
    )


def toml(value):
    """Return a plain mapping as TOML. Supports what the configs of tests need."""
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
        "embed.max_tokns",
        "max_tokens?",
    )


def test_a_missing_config(tmp_path):
    refused(clustermix("build", tmp_path / "none.toml"), "none.toml")


def test_a_missing_corpus(config, tmp_path):
    refused(
        clustermix("build", config(source={"kind": "jsonl", "path": str(tmp_path / "none")})),
        str(tmp_path / "none"),
    )


def test_an_empty_corpus(config, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(
        clustermix("build", config(source={"kind": "jsonl", "path": str(tmp_path / "empty")})),
        str(tmp_path / "empty"),
    )


def test_a_required_granularity_that_the_corpus_is_too_small_for(config):
    refused(
        clustermix("build", config(cluster={"granularities": [2, 4], "unsupported": "refuse"})),
        "4",
        "39",
    )


def test_a_missing_target(config, tmp_path):
    refused(
        clustermix("build", config(targets=[{"name": "x", "path": str(tmp_path / "none")}])), "none"
    )


def test_a_missing_catalog(tmp_path):
    refused(clustermix("query", tmp_path, "SELECT 1"), str(tmp_path))
    refused(clustermix("verify", tmp_path), str(tmp_path))
    (tmp_path / "train.toml").write_text(
        f'catalog = "{tmp_path}"\nout = "{tmp_path}/run"\ntarget = "x"\n'
    )
    refused(clustermix("train", tmp_path / "train.toml"), str(tmp_path))
    refused(
        clustermix("train", tmp_path / "train.toml", "--set", "mixture.mixr=dga"),
        "mixture.mixr",
        "mixer?",
    )


def test_machines_without_a_place_to_meet(tmp_path):
    (tmp_path / "train.toml").write_text(
        f'catalog = "{tmp_path}"\nout = "{tmp_path}/run"\ntarget = "x"\n'
    )
    refused(clustermix("train", tmp_path / "train.toml", "--nodes", "2"), "--rdzv")
    refused(clustermix("train", tmp_path / "train.toml", "--rdzv", "head:29500"), "--nodes")
    words = ("--nodes", "two", "--rdzv", "head:29500")
    refused(clustermix("train", tmp_path / "train.toml", *words), "--nodes", "count")


def test_an_unknown_value_of_a_choice(config):
    done = clustermix("build", config(), "--set", "quality.preset=gofer")
    refused(done, "quality.preset", "gofer", "gopher?")
    assert len(done.stderr.splitlines()) == 1


def test_names_that_the_catalog_lacks(built, tmp_path):
    (tmp_path / "train.toml").write_text(
        f'catalog = "{built[0]}"\nout = "{tmp_path}/run"\ntarget = "spcae"\n'
    )
    refused(clustermix("train", tmp_path / "train.toml", "--dry-run"), "spcae", "space")
    mistyped = built[0].with_name("catalgo")
    refused(clustermix("domains", mistyped), str(mistyped), f"{built[0].name}?")
    refused(
        clustermix("query", built[0], "SELECT tokns FROM domains"),
        'Referenced column "tokns" not found',
        '"tokens"',
    )
    refused(clustermix("query", built[0], "FROM domans"), 'Did you mean "domains"?')
    refused(clustermix("query", built[0], "FROM runs"), "--runs")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["quer"],
            "clustermix: no such command 'quer'. Did you mean 'query'? See `clustermix --help`.",
        ),
        (["query"], "clustermix: missing argument 'CATALOG'. See `clustermix query --help`."),
        (
            ["query", "--jsn"],
            "clustermix: no such option: --jsn (Possible options: --json). "
            "See `clustermix query --help`.",
        ),
        (
            ["build", "x", "--runner", "thread"],
            "clustermix: invalid value for '--runner': 'thread' is not one of 'threads', "
            "'processes', 'ray'. Did you mean threads? See `clustermix build --help`.",
        ),
    ],
)
def test_an_invalid_command_line(words, sentence):
    done = clustermix(*words)
    assert (done.returncode, done.stderr.strip(), done.stdout) == (2, sentence, "")


@pytest.mark.parametrize("before", [True, False])
def test_a_failure_shows_a_traceback_only_with_debug(built, tmp_path, monkeypatch, before):
    import flows.pages.catalog

    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(flows.pages.catalog, "write_catalog_page", fail)
    words = ["report", built[0], "--out", tmp_path / "page.html"]
    done = clustermix(*words)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("clustermix: failed: ")
    assert "--debug" in done.stderr
    traced = clustermix(*(["--debug", *words] if before else [*words, "--debug"]))
    assert traced.returncode == 1
    assert "Traceback (most recent call last)" in traced.stderr


def test_control_characters_of_a_file_name_are_not_printed(tmp_path):
    done = clustermix("plan", tmp_path / "\x1b[31mred")
    assert done.returncode == 2
    assert "\x1b" not in done.stderr


@pytest.mark.system
def test_ctrl_c_prints_one_line(tmp_path):
    waits = tmp_path / "config.toml"
    os.mkfifo(waits)

    def accept_ctrl_c():  # background jobs of a shell without job control ignore it
        signal.signal(signal.SIGINT, signal.default_int_handler)

    process = subprocess.Popen(
        [*COMMAND, "plan", str(waits)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=accept_ctrl_c,  # noqa: PLW1509
    )
    with waits.open("w"):  # the command now waits for its config
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "clustermix: interrupted\n")


def test_the_version():
    assert clustermix("--version").stdout == "clustermix 0.1.0\n"


@pytest.mark.system
@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["--help"], HEAVY | {"pyarrow", "numpy", "duckdb", "pydantic"}),
        (["query", "--help"], HEAVY | {"pyarrow", "numpy", "duckdb"}),
        (["query", "CATALOG", "SELECT 1"], HEAVY),
        (["domains", "CATALOG"], HEAVY),
    ],
)
def test_a_fast_command_does_not_import_heavy_packages(built, words, absent):
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


@pytest.mark.system
@pytest.mark.parametrize(
    ("words", "output", "code"),
    [
        (["query", "CATALOG", "SELECT repeat('x', 1000000)"], "closed", 141),
        (["domains", "CATALOG"], "closed", 141),
        (["--help"], "closed", 141),
        (["query", "CATALOG", "SELECT 1"], "full", 2),
        (["query", "CATALOG", "SELECT 1"], "none", 0),
    ],
)
def test_an_output_that_cannot_be_written_ends_in_order(built, words, output, code):
    words = [str(built[0]) if word == "CATALOG" else word for word in words]
    if output == "closed":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open("/dev/full" if output == "full" else os.devnull, os.O_WRONLY)
    close = (lambda: os.close(1)) if output == "none" else None
    done = subprocess.run(
        [*COMMAND, *words],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=close,
    )
    os.close(writer)
    sentence = "clustermix: standard output: cannot be written (No space left on device)"
    assert done.returncode == code
    assert done.stderr.partition(".")[0] == (sentence if output == "full" else "")


@pytest.mark.system
def test_a_character_that_the_terminal_lacks_ends_no_command(tmp_path, built):
    """The terminal knows only ASCII, and one folder has a name that is not even UTF-8."""
    folder = tmp_path / "caf\u00e9"
    folder.symlink_to(built[0])
    settings = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for words, code in (
        (["verify", folder], 0),
        (["query", folder, "SELECT chr(8594)"], 0),
        (["query", os.fsencode(tmp_path) + b"/\xe9", "SELECT 1"], 2),
    ):
        done = subprocess.run(
            [*COMMAND, *words], cwd=ROOT, env=settings, capture_output=True, check=False
        )
        assert done.returncode == code, done.stderr
        printed = done.stdout or done.stderr
        assert b"?" in printed or b"\\xe9" in printed
        assert b"Traceback" not in done.stderr


def test_a_config_from_windows_is_read(config):
    path = config(targets=[{"name": "x", "path": "none"}])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    refused(clustermix("build", path), "none")
    path.write_bytes('# "Größe"\n'.encode("latin-1"))
    refused(clustermix("build", path), str(path), "UTF-8")
    path.write_text("a = 1\n", encoding="utf-16")
    refused(clustermix("build", path), str(path), "UTF-8")


def test_another_package_of_our_name_is_named(monkeypatch):
    monkeypatch.setattr(
        failures, "packages_distributions", lambda: {"trainer": ["clustermix", "coqui-trainer"]}
    )
    error = ImportError("cannot import name 'Train'", name="trainer.config")
    sentence, code = failures.describe_error(error)
    assert code == 2
    assert "coqui-trainer" in sentence
    monkeypatch.setattr(failures, "packages_distributions", lambda: {"trainer": ["clustermix"]})
    assert failures.describe_error(error)[1] == 1
