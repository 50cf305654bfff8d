"""Parts of a step in which the host reads no number, for which it would wait for a GPU."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers.tiny_models import tiny_batch, tiny_engine, tiny_model


class NoReading(TorchDispatchMode):
    """Fails when a number is read from a tensor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_clipping_reads_no_number() -> None:
    engine = tiny_engine(tiny_model())
    engine.backward(tiny_batch(3))
    with NoReading():
        norm = engine.clip(0.1)
    assert float(engine.clip(1.0)) == pytest.approx(0.1, rel=1e-4)
    assert norm > 0.1
