from collections.abc import Iterator

import pytest

from pipeline.cluster.backends.backend import load_backend


@pytest.fixture(params=["torch", "faiss"])
def each_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let `auto` stand for one library after the other, so that a test runs with each."""
    monkeypatch.setattr("pipeline.cluster.backends.backend.chosen_backend", lambda: request.param)
    load_backend.cache_clear()
    yield request.param
    load_backend.cache_clear()
