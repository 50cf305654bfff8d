"""The plan of a build in environments that lack a home, a user or a usable proxy."""

import pytest

from tests.helpers.environments import FAULTS, MATRIX, USERS, build_workspace, try_command
from tests.helpers.forked_commands import Commands
from tests.helpers.shared import make_once

pytestmark = FAULTS


@pytest.fixture(scope="module", params=USERS)
def commands(request):
    running = Commands(
        USERS[request.param],
        ("flows.cli.main", "pipeline.planning.estimate", "transformers", "sentence_transformers"),
    )
    yield running
    running.close()


@pytest.mark.parametrize("environment", [e for e in MATRIX if e.user == "known"], ids=str)
def test_a_plan_works(commands, tmp_path_factory, tmp_path, environment):
    """The user is that of `commands`."""
    config = make_once(tmp_path_factory, "environments", build_workspace) / "build.toml"
    trial = try_command(commands, environment, ["plan", str(config)], tmp_path)
    assert (trial.done.code, trial.left) == (0, set()), trial.done.stderr
    assert "disk" in trial.done.stdout
