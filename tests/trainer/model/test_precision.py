"""The automatic precision is that of the device, and of a run that has begun."""

from pathlib import Path

import pytest
import torch

from data_catalog.errors import UserError
from flows.training_check import require_same_run
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import tiny_config
from trainer.config import Training
from trainer.loop import train
from trainer.model.precision import automatic_precision, settled, use_precision
from trainer.state.resume import with_precision


def test_a_gpu_with_bfloat16_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for native, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: native)  # noqa: B023
        assert automatic_precision("cuda") == expected
        assert automatic_precision("cpu") == "float32"
        assert settled(Training(), "cuda").precision == expected
        assert settled(Training(precision="tf32"), "cuda").precision == "tf32"


def test_only_tf32_changes_float32_products() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        for precision, expected in (("tf32", "high"), ("float32", "highest")):
            use_precision(precision, "cuda")
            use_precision("tf32", "cpu")
            assert torch.get_float32_matmul_precision() == expected
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.system
@pytest.mark.parametrize("given", ["auto", "bfloat16"])
def test_a_run_keeps_its_precision(tmp_path: Path, given: str) -> None:
    """Also where another one would be chosen, as on this machine without a GPU."""
    catalog, out = write_tiny_catalog(tmp_path / "catalog"), tmp_path / "run"
    begun = tiny_config(catalog, out, training={"precision": given, "steps": 12})
    train(begun)
    automatic = tiny_config(catalog, out, training={"precision": "auto", "steps": 12})
    used = "float32" if given == "auto" else given
    kept = with_precision(automatic, "tf32")
    assert kept.training.precision == used
    assert with_precision(tiny_config(catalog, tmp_path / "new"), "tf32") != kept
    assert train(automatic)  # is finished, and not refused
    require_same_run(automatic)
    other = tiny_config(catalog, out, training={"precision": "tf32", "steps": 12})
    with pytest.raises(UserError, match=r"training\.precision"):
        train(other)
