"""Commands that start no flow, in environments that lack a home, a user or a usable proxy."""

import pytest

from tests.helpers.environments import FAULTS, MATRIX, USERS, build_workspace, try_command
from tests.helpers.forked_commands import Commands
from tests.helpers.shared import make_once

pytestmark = FAULTS
COMMANDS = {
    "help": (["--help"], "Usage: clustermix"),
    "query": (["query", "CATALOG", "SELECT count(*) AS n FROM documents"], "160"),
    "verify": (["verify", "CATALOG"], "no faults"),
}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return make_once(tmp_path_factory, "environments", build_workspace) / "catalog"


@pytest.fixture(scope="module", params=USERS)
def commands(request):
    modules = ("flows.cli.main", "data_catalog.query.database", "pyarrow.dataset", "rich.console")
    running = Commands(USERS[request.param], modules)
    yield running
    running.close()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("environment", [e for e in MATRIX if e.user == "known"], ids=str)
def test_a_command_without_a_flow_works(commands, catalog, tmp_path, environment, command):
    """The user is that of `commands`."""
    words, expected = COMMANDS[command]
    words = [str(catalog) if word == "CATALOG" else word for word in words]
    trial = try_command(commands, environment, words, tmp_path)
    assert (trial.done.code, trial.left) == (0, set()), trial.done.stderr
    assert expected in trial.done.stdout
