"""Flows in environments that lack a home, a user, or usable settings of Prefect."""

import os
from itertools import combinations, product

import pytest

from tests.helpers.environments import (
    FAULTS,
    HOMES,
    PROFILES,
    PROXIES,
    USERS,
    Environment,
    build_workspace,
    try_command,
)
from tests.helpers.forked_commands import Commands
from tests.helpers.shared import make_once

pytestmark = FAULTS
RESULTS = {"build": "Report: ", "train": "report.html"}


def selection():
    """Yield 12 environments with a command, in which all pairs of values occur."""
    for (p, profile), (q, proxy) in product(enumerate(PROFILES), enumerate(PROXIES)):
        home, user = HOMES[(p + q) % 3], list(USERS)[(p // 2 + q // 2) % 2]
        yield Environment(home, user, proxy, profile), list(RESULTS)[(p // 2 + q) % 2]


def check_pairs(rows):
    for one, other in combinations(range(5), 2):
        values = {row[one] for row in rows}, {row[other] for row in rows}
        assert {(row[one], row[other]) for row in rows} == set(product(*values))


SELECTION = sorted(selection(), key=lambda row: row[0].user)
check_pairs([(e.home, e.user, e.proxy, e.profile, command) for e, command in SELECTION])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return make_once(tmp_path_factory, "environments", build_workspace)


@pytest.fixture(scope="module")
def commands_of():
    """The commands of each user, started once."""
    modules = ("flows.cli.main", "pipeline.run", "faiss", "transformers", "sentence_transformers")
    running = {name: Commands(user, modules) for name, user in USERS.items()}
    yield running
    for commands in running.values():
        commands.close()


@pytest.mark.parametrize(("environment", "command"), SELECTION, ids=str)
def test_a_flow(commands_of, workspace, tmp_path, environment, command):
    commands, out = commands_of[environment.user], tmp_path / "out"
    out.mkdir()
    os.chown(out, commands.user, commands.user)
    words = [command, str(workspace / f"{command}.toml"), "--set", f"out={out}/result"]
    words += ["--prefect"]
    trial = try_command(commands, environment, words, tmp_path)
    assert not trial.left
    if environment.profile == "broken":
        assert trial.done.code == 2, trial.done.stderr
        assert trial.done.seconds <= 5
        [sentence] = trial.done.stderr.splitlines()
        assert "profiles.toml: Prefect cannot read its settings from this file" in sentence
        assert not list(out.iterdir())
    else:
        assert trial.done.code == 0, trial.done.stderr
        assert RESULTS[command] in trial.done.stdout
        assert (out / "result" / "report.html").is_file()
