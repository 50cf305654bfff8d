"""Folders that cannot be written, files that cannot be read, and limits of a process."""

import json
import resource

import pytest

from data_catalog.format.manifest import read_manifest
from tests.helpers.commands import run_command, small_disk
from tests.helpers.faults import Wrong
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_corpus import write_corpus
from tests.helpers.tiny_training import write_config

pytestmark = pytest.mark.faults(
    "Permissions and limits",
    tried=(
        "Read-only file systems, outputs of another user, unreadable inputs, a file where a folder "
        "should be, names that are too long, and limits on the size and number of open files."
    ),
    expected=(
        "One sentence with the path, exit code 2, nothing written, and the repeated command "
        "completes once the cause is gone."
    ),
)

NOBODY = 12345


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus with its build, a tiny catalog and a run, which all users can read."""
    folder = tmp_path_factory.mktemp("place")
    folder.chmod(0o755)
    config = folder / "build.json"
    config.write_text(json.dumps(write_corpus(folder)))
    assert run_command("build", config).code == 0
    catalog = write_tiny_catalog(folder / "tiny")
    ended = run_command("train", write_config(folder, catalog, folder / "run"))
    assert ended.code == 0, ended.output
    return folder


def words(command, place, out, folder):
    """The words of a command that writes to `out`, with its config in `folder`."""
    match command:
        case "build":
            config = json.loads((place / "build.json").read_text()) | {"out": str(out)}
            (folder / "build.json").write_text(json.dumps(config))
            return ("build", folder / "build.json")
        case "train":
            config = write_config(folder, place / "tiny", folder / "run")
            config.write_text(config.read_text().replace(str(folder / "run"), str(out)))
            return ("train", config)
        case "report":
            return ("report", place / "run", "--out", out / "report.html")
        case "documents":
            return ("export", "documents", place / "catalog", out)
        case _:
            return (command, "catalog", place / "catalog", out)


COMMANDS = ("build", "train", "report", "documents", "export", "fetch")


def refused(ended, path):
    assert ended.code == 2, ended.output
    assert "Traceback" not in ended.output, ended.output
    assert str(path) in ended.output, ended.output


@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_file_system(place, tmp_path, command):
    with small_disk(tmp_path / "disk", "20m") as disk:
        disk.mount("ro")
        arguments = words(command, place, disk.root / "out", tmp_path)
        refused(run_command(*arguments), disk.root)
        disk.mount("rw")
        ended = run_command(*arguments)
        assert ended.code == 0, ended.output


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_of_another_user(place, tmp_path, command):
    tmp_path.chmod(0o755)
    (tmp_path / "out").mkdir(mode=0o755)
    arguments = words(command, place, tmp_path / "out" / "inner", tmp_path)
    refused(run_command(*arguments, user=NOBODY), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_where_a_folder_should_be(place, tmp_path, command):
    (tmp_path / "out").write_text("precious")
    arguments = words(command, place, tmp_path / "out" / "inner", tmp_path)
    refused(run_command(*arguments), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "precious"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_is_too_long(place, tmp_path, command):
    refused(run_command(*words(command, place, tmp_path / ("a" * 300), tmp_path)), "aaaa")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_limit_on_the_size_of_files(place, tmp_path, command):
    out = tmp_path / "out"
    arguments = words(command, place, out, tmp_path)
    refused(run_command(*arguments, limits={resource.RLIMIT_FSIZE: 4_096}), out)
    assert [path for path in tmp_path.rglob("*.tmp") if path.exists()] == []
    ended = run_command(*arguments)
    assert ended.code == 0, ended.output
    expected = read_manifest(place / "catalog").fingerprint
    if command in ("build", "export", "fetch") and read_manifest(out).fingerprint != expected:
        raise Wrong(f"{out} is another catalog")


@pytest.mark.parametrize("files", [12, 20])
def test_a_limit_on_open_files(place, tmp_path, files):
    arguments = words("build", place, tmp_path / "out", tmp_path)
    ended = run_command(*arguments, limits={resource.RLIMIT_NOFILE: files})
    assert "Traceback" not in ended.output, ended.output
    if ended.code:
        assert ended.code == 2, ended.output
        assert run_command(*arguments).code == 0
    if read_manifest(tmp_path / "out").fingerprint != read_manifest(place / "catalog").fingerprint:
        raise Wrong("another catalog")


@pytest.mark.parametrize("name", ["catalog.json", "corpus config", "train config"])
def test_an_unreadable_input(place, tmp_path, name):
    tmp_path.chmod(0o755)
    (tmp_path / "work").mkdir()
    (tmp_path / "work").chmod(0o777)
    if name == "catalog.json":
        secret = place / "catalog" / "catalog.json"
        arguments = ("query", place / "catalog", "SELECT 1")
    elif name == "corpus config":
        secret = tmp_path / "build.toml"
        secret.write_text("")
        arguments = ("plan", secret)
    else:
        arguments = words("train", place, tmp_path / "work" / "out", tmp_path)
        secret = arguments[1]
    mode = secret.stat().st_mode
    secret.chmod(0)
    try:
        refused(run_command(*arguments, user=NOBODY), secret)
    finally:
        secret.chmod(mode)
