"""Environments that commands meet on clusters, in containers and behind proxies."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from data_catalog.settings import parse
from pipeline.config import Build
from pipeline.run import build
from tests.helpers.forked_commands import KNOWN_USER, UNKNOWN_USER, Commands, Done
from tests.helpers.tiny_corpus import write_corpus

HOMES = ("missing", "root", "read-only")
PROFILES = {
    "none": None,
    "empty": "",
    "prefect-2": (
        'active = "default"\n[profiles.default]\n'
        'PREFECT_ORION_DATABASE_CONNECTION_URL = "sqlite:////tmp/orion.db"\n'
        'PREFECT_LOGGING_SERVER_LEVEL = "WARNING"\n'
    ),
    "broken": 'active = "broken\n',
}
PROXIES = {
    "none": (),
    "http": ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"),
    "socks": ("ALL_PROXY", "all_proxy"),
}

FAULTS = pytest.mark.faults(
    "Environment",
    tried=(
        "`--help`, `query`, `verify` and `plan` in all combinations of: home missing, `/` or "
        "read-only; known or unknown user; no, HTTP or SOCKS proxy; no, empty, broken or Prefect 2 "
        "profile. `build` and `train` with `--prefect` in a selection in which all pairs of these "
        "values occur. "
        "A Prefect server that does not answer, named in a variable, `.env`, `prefect.toml`, "
        "`pyproject.toml` or a profile."
    ),
    expected=(
        "The command works and leaves nothing in the home, in the current folder and among "
        "temporary files. With a broken profile, `build` and `train` end within 5 s with exit code "
        "2 and one sentence that names the file; with a server that does not answer, alike."
    ),
)


@dataclass(frozen=True)
class Environment:
    """One row of the matrix."""

    home: str
    user: str
    proxy: str
    profile: str

    def __str__(self) -> str:
        return f"home-{self.home},user-{self.user},proxy-{self.proxy},profile-{self.profile}"

    def variables(self, folder: Path, user: int) -> Mapping[str, str]:
        """Make what the environment needs below `folder` and return its variables."""
        temporary, home = folder / "temporary", folder / "home"
        for made, owner in ((temporary, user), (home, 0)):  # others cannot write into the home
            made.mkdir()
            os.chown(made, owner, owner)
            made.chmod(0o755)
        variables = {"PATH": os.environ["PATH"], "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
        variables |= {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        variables |= {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
        scheme = "socks5" if self.proxy == "socks" else "http"
        variables |= dict.fromkeys(PROXIES[self.proxy], f"{scheme}://127.0.0.1:9")  # nobody answers
        if self.home != "missing":
            variables["HOME"] = "/" if self.home == "root" else str(home)
        if (text := PROFILES[self.profile]) is not None:
            profiles = home / ".prefect" / "profiles.toml"
            profiles.parent.mkdir()
            profiles.write_text(text)
            if self.home != "read-only":
                variables["PREFECT_PROFILES_PATH"] = str(profiles)
        return variables


USERS = {"known": KNOWN_USER, "unknown": UNKNOWN_USER}
MATRIX = [Environment(*values) for values in product(HOMES, USERS, PROXIES, PROFILES)]


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def build_workspace(folder: Path) -> None:
    """Write a corpus, a catalog, and configs of a build and a training into `folder`."""
    settings = write_corpus(folder)
    build(parse(Build, settings, "test"))
    (folder / "build.toml").write_text(BUILD.format(folder=folder))
    (folder / "train.toml").write_text(TRAIN.format(folder=folder))


BUILD = """\
out = "{folder}/unused"
source = {{ kind = "jsonl", path = "{folder}/corpus" }}
embed = {{ max_tokens = 32 }}
cluster = {{ granularities = [2, 4], min_points = 20 }}
tokenizer = {{ vocabulary = 400 }}
targets = [{{ name = "space", path = "{folder}/target" }}]
"""
TRAIN = """\
catalog = "{folder}/catalog"
out = "{folder}/unused"
target = "space"
model = {{ hidden_size = 32, layers = 2, heads = 2 }}
mixture = {{ update_every_steps = 2, basis_sequences = 2, target_sequences = 2 }}
training = {{ steps = 4, batch_sequences = 4, micro_batch_sequences = 4, sequence_tokens = 16 }}
evaluation = {{ every_steps = 4, sequences = 4 }}
"""


@dataclass(frozen=True)
class Trial:
    """A finished command and what it left."""

    done: Done
    left: set[str]
    """Files in the current folder, the home and the folder of temporary files."""


def try_command(
    commands: Commands, environment: Environment, words: Sequence[str], folder: Path
) -> Trial:
    """Run a command in an environment, in an empty current folder."""
    for parent in folder.parents:
        if parent.owner() == "root" and not parent.stat().st_mode & 0o001:
            parent.chmod(0o711)  # pytest's own folders are private
    (folder / "current").mkdir()
    variables = environment.variables(folder, commands.user)
    before = files_below(folder / "home")
    done = commands.run(words, variables, folder / "current")
    left = files_below(folder / "home") ^ before
    for name in ("current", "temporary"):
        left |= {path for path in files_below(folder / name) if "torchinductor" not in path}
    assert "Traceback" not in done.stderr, done.stderr
    return Trial(done, left)
