"""Stages on a real Ray cluster of this machine: order, errors, deaths, and a whole build."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.helpers.repository import ROOT

pytest.importorskip("ray")
pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]  # Ray starts late on a busy machine


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("ray")
    script = "import sys; from tests.helpers.ray_trials import *; print_outcomes(sys.argv[1])"
    command = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_results_keep_their_order_and_each_is_reported(outcomes: dict[str, Any]) -> None:
    assert outcomes["rows"] == [3, 1, 2]
    assert outcomes["finished"] == ["part-1", "part-2", "part-3"]


def test_warnings_of_parts_reach_the_command(outcomes: dict[str, Any]) -> None:
    assert {"1 rows", "2 rows", "3 rows"} <= set(outcomes["warnings"])


def test_parts_that_fail_or_lose_their_process_are_tried_again(outcomes: dict[str, Any]) -> None:
    assert outcomes["again"] == [1, 1]


def test_a_refusal_is_raised_as_it_is_and_not_tried_again(outcomes: dict[str, Any]) -> None:
    assert outcomes["refusal"] == "refused: no such language"
    assert outcomes["attempts"] == 1


def test_a_build_has_the_fingerprint_of_the_plain_loop(outcomes: dict[str, Any]) -> None:
    plain, made = outcomes["fingerprints"]
    assert made == plain
