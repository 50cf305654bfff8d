import os

import pytest

from flows.environment import end_quietly
from tests.helpers.browser import chromium  # noqa: F401 (a fixture)
from tests.helpers.tiny_corpus import write_corpus

end_quietly()

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory):
    """One throw-away Prefect server for all tests that run flows."""
    os.environ["PREFECT_HOME"] = str(tmp_path_factory.mktemp("prefect"))
    from flows.environment import prepare

    prepare()
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120), pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "PREFECT_API_URL", PREFECT_API_URL.value()
        )  # for the commands that tests start
        yield


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A small catalog built by the plain loop, and the settings it was built with."""
    from data_catalog.settings import parse
    from pipeline.config import Build
    from pipeline.run import build

    folder = tmp_path_factory.mktemp("built")
    settings = write_corpus(folder)
    return build(parse(Build, settings, "test")), settings


@pytest.fixture(scope="session")
def sample_workspace(tmp_path_factory):
    """The folder that the documentation speaks of, tiny; tests work in copies of it."""
    from tests.helpers.tiny_workspace import build_workspace

    return build_workspace(tmp_path_factory.mktemp("documented") / "workspace")
