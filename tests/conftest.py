import os

import pytest
from hypothesis import HealthCheck, settings

if "PYTEST_XDIST_WORKER" in os.environ:  # before the libraries that read it are imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import tests.helpers.typechecker  # noqa: F401 (imported before the packages that it checks)
from flows.environment import end_quietly
from tests.helpers.browser import chromium  # noqa: F401 (a fixture)
from tests.helpers.repository import ROOT
from tests.helpers.shared import make_once
from tests.helpers.tiny_corpus import write_corpus

end_quietly()

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A slow machine is no failure of a property.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

# Files of more than about five seconds. They start first, so that no worker ends with a long one.
LONG_FILES = (
    "system/test_docs_run.py",
    "system/test_prefect_stopping.py",
    "system/test_prefect_server.py",
    "system/test_interrupts.py",
    "system/test_distributed_training.py",
    "system/test_resume.py",
    "system/test_sample_corpus.py",
    "system/test_killed.py",
    "system/test_prefect.py",
    "flows/test_train_flow.py",
    "flows/test_build_flow.py",
    "flows/cli/test_commands.py",
    "system/test_five_commands.py",
    "system/test_prefect_deployments.py",
    "system/test_catalog_page_browser.py",
    "system/test_report_browser.py",
    "pipeline/embed/test_encoder.py",
    "pipeline/embed/test_backends.py",
    "trainer/alignment/test_backends_agree.py",
    "trainer/mixers/test_mixers_toys.py",
    "pipeline/test_run.py",
    "pipeline/test_dirt.py",
    "data_catalog/transfer/test_copy.py",
    "pipeline/source/test_python_docs.py",
    "trainer/test_modes.py",
    "faults/test_signals.py",
    "faults/test_environment_flows.py",
    "faults/test_signals_runs.py",
    "faults/test_exported_model.py",
    "faults/test_environment_plan.py",
    "faults/test_disk.py",
)
SYSTEM_FIXTURES = {"prefect_url", "forked_trainer", "chromium", "sample_workspace"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of whole processes, and put long files first."""
    tests = ROOT / "tests"
    rank = {tests / name: number for number, name in enumerate(LONG_FILES)}
    for item in items:
        if tests / "system" in item.path.parents or SYSTEM_FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.system)
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Records of verified files go to a cache of this process of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def prefect_url(tmp_path_factory):
    """One throw-away Prefect server for all tests of a worker that run flows."""
    os.environ["PREFECT_HOME"] = str(tmp_path_factory.mktemp("prefect"))
    from flows.prefect_environment import prepare

    prepare()
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield PREFECT_API_URL.value()


@pytest.fixture
def prefect_server(prefect_url, monkeypatch):
    """A Prefect server, also for the commands that a test starts."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)


@pytest.fixture
def forked_trainer(monkeypatch):
    """Trainings start a forked trainer, for tests that are not about the trainer's process."""
    from flows import trainer_process
    from tests.helpers.processes import ForkedTrainer

    monkeypatch.setattr(trainer_process, "start_trainer", ForkedTrainer)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A small catalog built by the plain loop, and the settings it was built with.

    All tests of a process share it. A test that changes it ends the run with an error.
    """
    from data_catalog.settings import parse
    from pipeline.config import Build
    from pipeline.run import build

    folder = tmp_path_factory.mktemp("built")
    settings = write_corpus(folder)
    root = build(parse(Build, settings, "test"))
    before = _sizes_in(root)
    yield root, settings
    assert _sizes_in(root) == before, "a test has changed the shared catalog"


def _sizes_in(root):
    """Size of every file of a catalog but those of its work folder."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): path.stat().st_size
        for path in files
        if path.relative_to(root).parts[0] != "work"
    }


@pytest.fixture(scope="session")
def sample_workspace(tmp_path_factory):
    """The folder that the documentation speaks of, tiny; tests work in copies of it."""
    from tests.helpers.tiny_workspace import build_workspace

    return make_once(tmp_path_factory, "documented", build_workspace)
