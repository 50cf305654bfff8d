"""The machines and the store of all tests in this folder."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.repository import ROOT
from tests.scale.machines import HOST, Machine, machines
from tests.scale.stored import PORT, Store, upload_corpus


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scale")


@pytest.fixture(scope="package")
def cluster(folder: Path) -> Iterator[tuple[list[Machine], Store]]:
    """Yield the machine of the command, three others and the store."""
    environment = {
        **os.environ,  # variables of this kind of processor change the last bits of products
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{HOST}:{PORT}",
        "HF_HUB_OFFLINE": "1",
        "RAY_raylet_start_wait_time_s": "300",
        "RAY_agent_register_timeout_ms": "300000",
    }
    private = [Path("/home"), Path("/tmp"), Path("/dev/shm")]
    with machines(4, private, environment) as made, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        store = Store(folder / "journal")
        try:
            yield made, store
        finally:
            store.kill()


@pytest.fixture(scope="package")
def settings(cluster: tuple[list[Machine], Store], folder: Path) -> dict[str, Any]:
    """The config of a build, without `out`. Its corpus is in the store."""
    del cluster  # has the store
    return upload_corpus(folder)
