"""What a command sets for libraries, and what it does where its environment lacks something."""

import logging
import os
import pwd
import socket
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import pytest

from data_catalog.errors import UserError
from flows.environment import LOOPBACK, set_library_defaults
from flows.prefect_environment import find_server, prepare
from flows.prefect_settings import named_url

PROXY = "http://proxy.example:3128"


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Set exactly these variables for the test, which runs in an empty folder."""

    def set_only(**variables):
        for name in list(os.environ):
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return set_only


def prefect_settings():
    return {name: value for name, value in os.environ.items() if name.startswith("PREFECT_")}


def test_settings_of_the_user_are_kept(environment, tmp_path):
    environment(HOME=tmp_path, PREFECT_API_URL="https://api.example/api", DO_NOT_TRACK="0")
    prepare()
    assert os.environ["PREFECT_API_URL"] == "https://api.example/api"
    assert os.environ["DO_NOT_TRACK"] == "0"
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert "PREFECT_PROFILES_PATH" not in os.environ


def test_the_limit_of_open_files_is_raised():
    code = """
import resource
from flows.prefect_environment import prepare
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
assert hard > 64
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
prepare()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert ended.returncode == 0, ended.stderr


def test_prefect_profiles_are_read_from_their_default_place(environment, tmp_path):
    (tmp_path / ".prefect").mkdir()
    profiles = tmp_path / ".prefect" / "profiles.toml"
    profiles.write_text('active = "cloud"\n')
    environment(HOME=tmp_path)
    prepare()
    assert os.environ["PREFECT_PROFILES_PATH"] == str(profiles)
    environment(HOME=tmp_path, PREFECT_HOME="elsewhere")
    prepare()
    assert "PREFECT_PROFILES_PATH" not in os.environ


def test_prefect_knows_all_settings_and_does_not_round_them(environment, tmp_path):
    """Prefect truncates some settings to integers, so that a fraction would become 0."""
    from prefect.settings import Settings

    environment(HOME=tmp_path)
    prepare()
    ours = prefect_settings()
    read = Settings().to_environment_variables(exclude_unset=True)
    assert ours.keys() <= read.keys()
    numbers = [float(read[name]) for name, value in ours.items() if value[0].isdigit()]
    assert len(numbers) == 3
    assert all(number >= 1 and number == int(number) for number in numbers)


def test_the_log_of_prefect_follows_the_root_logger(environment, tmp_path):
    environment(HOME=tmp_path)
    with patch.object(logging.getLogger(), "level", logging.INFO):
        logging.getLogger()._cache.clear()
        prepare()
    logging.getLogger()._cache.clear()
    assert os.environ["PREFECT_LOGGING_LEVEL"] == "DEBUG"


def test_prefect_does_not_report_events_that_its_ended_server_cannot_take(tmp_path):
    """The log of its internals has a level of its own, which is ERROR by default."""
    code = (
        "from flows.prefect_environment import prepare; prepare(); import logging, prefect.main\n"
        "from prefect.logging import get_logger\n"
        "get_logger('prefect._internal.concurrency').error('failed to process item')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_a_command_without_a_flow_leaves_prefect_and_files_alone(environment, tmp_path):
    (tmp_path / "home").mkdir()
    environment(HOME=tmp_path / "home")
    set_library_defaults()
    assert not prefect_settings()
    assert not list((tmp_path / "home").iterdir())
    assert os.environ["HOME"] == str(tmp_path / "home")


@pytest.mark.parametrize("home", ["/", "", "relative", "/nonexistent/home", __file__])
def test_a_home_that_is_none_is_replaced_by_a_private_folder(environment, tmp_path, home):
    environment(HOME=home, TMPDIR=tmp_path)
    with patch("tempfile.tempdir", None):
        set_library_defaults()
        replaced = Path(os.environ["HOME"])
        assert replaced.parent == tmp_path
        assert not replaced.exists()
        prepare()
        assert stat.S_IMODE(replaced.stat().st_mode) == 0o700
        assert replaced in Path(os.environ["PREFECT_HOME"]).parents
        environment(HOME=home, TMPDIR=tmp_path)
        set_library_defaults()
        assert os.environ["HOME"] != str(replaced), "the name can be guessed"


def test_an_unknown_user_has_a_home(environment, monkeypatch):
    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    environment()
    set_library_defaults()
    assert Path.home().is_absolute()


def test_a_cache_folder_that_cannot_be_written_is_replaced(environment, tmp_path):
    (tmp_path / "file").touch()
    environment(HOME=tmp_path, XDG_CACHE_HOME=tmp_path / "file" / "cache")
    prepare()
    home = Path(os.environ["PREFECT_HOME"])
    assert stat.S_IMODE(home.parent.stat().st_mode) == 0o700
    assert home.is_dir()
    assert tmp_path not in home.parents
    assert os.environ["HOME"] == str(tmp_path)


@pytest.mark.parametrize("home", ["file/prefect", "~nobody-by-this-name/prefect"])
def test_a_prefect_home_that_cannot_be_written_is_refused(environment, tmp_path, home):
    Path("file").touch()
    environment(HOME=tmp_path, PREFECT_HOME=home)
    with pytest.raises(UserError, match=f"^PREFECT_HOME {home}: "):
        prepare()


def test_no_folder_for_temporary_files_is_refused(environment, tmp_path):
    environment(HOME=tmp_path)
    missing = patch("tempfile.gettempdir", side_effect=FileNotFoundError("none"))
    with missing, pytest.raises(UserError, match=r"^TMPDIR: "):
        prepare()


@pytest.mark.parametrize(
    ("before", "hosts"),
    [
        ({}, ""),
        ({"no_proxy": "a.example"}, "a.example,"),
        ({"NO_PROXY": "a.example, .b.example"}, "a.example,.b.example,"),
        ({"no_proxy": "localhost,a.example"}, None),
    ],
)
def test_loopback_is_not_proxied(environment, before, hosts):
    from urllib.request import getproxies, proxy_bypass

    environment(HOME="/tmp", HTTP_PROXY=PROXY, **before)
    for _ in range(2):  # the second time changes nothing
        set_library_defaults()
        for name in ("no_proxy", "NO_PROXY"):
            assert hosts is None or os.environ[name] == hosts + ",".join(LOOPBACK)
            assert os.environ[name].count("localhost") == 1
    assert all(proxy_bypass(f"{host}:4200") for host in ("127.0.0.1", "localhost"))
    assert bool(proxy_bypass("a.example")) == bool(before)
    assert getproxies()["http"] == PROXY


def test_no_proxy_is_left_alone_without_a_proxy_and_where_nothing_is_proxied(environment):
    environment(HOME="/tmp", HTTP_PROXY="")
    set_library_defaults()
    assert "no_proxy" not in os.environ
    environment(HOME="/tmp", HTTP_PROXY=PROXY, NO_PROXY="*")
    set_library_defaults()
    assert os.environ["NO_PROXY"] == "*"
    assert "no_proxy" not in os.environ


@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:9", "socks5h://127.0.0.1:9", "socks://127.0.0.1:9/", "proxy:8080"]
)
def test_clients_of_prefect_can_be_made_with_a_proxy(environment, tmp_path, proxy):
    environment(HOME=tmp_path, ALL_PROXY=proxy, all_proxy=proxy)
    prepare()


def test_a_proxy_that_no_client_can_use_is_refused(environment, tmp_path):
    environment(HOME=tmp_path, ALL_PROXY="ftp://user:secret@127.0.0.1:9")
    with pytest.raises(UserError, match="ALL_PROXY") as refused:
        prepare()
    assert "secret@" not in str(refused.value)
    environment(HOME=tmp_path, ALL_PROXY="socks5://127.0.0.1:9")
    missing = patch.dict(sys.modules, {"socksio": None})
    with missing, pytest.raises(UserError, match="socksio"):
        prepare()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("profiles.toml", b'active = "broken'),
        ("profiles.toml", b"\xff\xfea\x00"),
        ("profiles.toml", b"active = 3"),
        ("profiles.toml", b"profiles = 3"),
        ("profiles.toml", b"[profiles]\ndefault = 3"),
        ("prefect.toml", b"["),
        ("pyproject.toml", b"\xff"),
        (".env", b"PREFECT_API_URL=\xff"),
    ],
)
def test_a_damaged_file_of_settings_is_named(environment, tmp_path, name, content):
    environment(HOME=tmp_path, PREFECT_HOME=tmp_path)
    path = tmp_path / name if name == "profiles.toml" else Path(name)
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: Prefect cannot read"):
        prepare()


def test_profiles_that_cannot_be_read_are_named(environment, tmp_path):
    (tmp_path / "profiles.toml").mkdir()
    environment(HOME=tmp_path, PREFECT_HOME=tmp_path)
    with pytest.raises(UserError, match=r"profiles.toml: .*Is a directory"):
        prepare()


@pytest.mark.parametrize("content", ["", 'active = "x"\n[profiles.default]\nPREFECT_ORION_X = 1'])
def test_an_empty_or_old_file_of_profiles_is_accepted(environment, tmp_path, content):
    (tmp_path / "profiles.toml").write_text(content)
    environment(HOME=tmp_path, PREFECT_HOME=tmp_path)
    prepare()


def test_a_server_that_does_not_answer_is_refused(environment, tmp_path):
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        environment(HOME=tmp_path, PREFECT_API_URL=url)
        with pytest.raises(UserError, match=rf"^PREFECT_API_URL {url}: .*Start it, or unset"):
            find_server()
        silent.listen()  # accepts a connection and then says nothing
        with (
            patch("flows.prefect_environment.ANSWER_SECONDS", 0.2),
            pytest.raises(UserError, match="Start it, or unset PREFECT_API_URL"),
        ):
            find_server()


def test_a_server_that_answers_is_found(prefect_server):
    assert find_server() == os.environ["PREFECT_API_URL"]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        (".env", b"prefect_api_url=x\nPREFECT_API_URL='http://a/api'\n", "http://a/api"),
        ("prefect.toml", b'[api]\nurl = "http://b/api"', "http://b/api"),
        ("prefect.toml", b"api = 3", None),
        ("pyproject.toml", b'[tool.prefect.api]\nurl = "http://c/api"', "http://c/api"),
        ("pyproject.toml", b"\xff", None),
        (".env", b"PREFECT_API_URL=\xff", None),
        ("profiles.toml", b'active = "x"\n[profiles.x]\nPREFECT_API_URL = "http://d"', "http://d"),
        ("profiles.toml", b'[profiles.x]\nPREFECT_API_URL = "http://d"', None),
        ("profiles.toml", b'active = "x"\n[profiles.x]\nPREFECT_API_URL = 3', None),
    ],
)
def test_the_server_of_the_settings_is_known_without_prefect(
    environment, tmp_path, name, content, found
):
    environment(HOME=tmp_path, PREFECT_HOME=tmp_path)
    assert named_url() is None
    (tmp_path / name if name == "profiles.toml" else Path(name)).write_bytes(content)
    assert named_url() == found
    os.environ["PREFECT_API_URL"] = "http://first/api"
    assert named_url() == "http://first/api"


def test_a_profile_is_chosen_by_its_variable(environment, tmp_path):
    (tmp_path / "profiles.toml").write_text('[profiles.y]\nPREFECT_API_URL = "http://y"')
    environment(HOME=tmp_path, PREFECT_HOME=tmp_path, PREFECT_PROFILE="y")
    assert named_url() == "http://y"
    environment(HOME=tmp_path, PREFECT_HOME="~no-such-user/x")
    assert named_url() is None
