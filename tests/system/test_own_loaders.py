"""The loaders of examples/own_loaders.py have the interfaces of torchtitan and nanochat.

Neither package is installed with the others: torchtitan 0.3 needs datasets < 4.8, and nanochat does
not install from PyPI. The loops below call what theirs do.
"""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor
from torch.nn import functional

from examples import own_loaders
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import tiny_config
from tests.trainer.library.test_mixture import SETTINGS, Loop, mixture_of

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_catalog(tmp_path_factory.mktemp("catalog"))


def step(loop: Loop, inputs: Tensor, labels: Tensor) -> float:
    logits = loop.model(input_ids=inputs).logits
    loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    loss.backward()
    return loss.item()


def update(loop: Loop) -> None:
    loop.optimizer.step()
    loop.optimizer.zero_grad()


def test_torchtitan_trains_and_resumes(catalog: Path, tmp_path: Path) -> None:
    config = tiny_config(catalog, tmp_path / "run", **SETTINGS)
    loop, losses, states = Loop(config), [], {}
    mixture = mixture_of(config)
    loader = own_loaders.MixtureDataLoader(mixture, dp_rank=0, dp_world_size=1, local_batch_size=6)
    loader.load_state_dict({})
    for number, (inputs, labels) in enumerate(loader, start=1):
        losses.append(step(loop, inputs["input"], labels))
        update(loop)
        mixture.after_step(loop.model)
        states[number] = (loader.state_dict(), *map(clone, (loop.model, loop.optimizer)))
    assert len(losses) == 14

    mixture, again = mixture_of(config), []
    loader = own_loaders.MixtureDataLoader(mixture, dp_rank=0, dp_world_size=1, local_batch_size=6)
    position, model, optimizer = states[7]
    loader.load_state_dict(position)
    loop.model.load_state_dict(model)
    loop.optimizer.load_state_dict(optimizer)
    for inputs, labels in loader:
        again.append(step(loop, inputs["input"], labels))
        update(loop)
        mixture.after_step(loop.model)
    assert again == losses[7:]


def clone(part: Any) -> Any:
    import copy

    return copy.deepcopy(part.state_dict())


def test_nanochat_reads_one_batch_ahead(catalog: Path, tmp_path: Path) -> None:
    config = tiny_config(catalog, tmp_path / "run", **SETTINGS)
    mixture, loop = mixture_of(config), Loop(config)
    loader = own_loaders.nanochat_loader(mixture, 3, rank=0, world=1, device="cpu")
    inputs, targets = next(loader)
    for number in range(14):
        for _ in range(2):  # gradient accumulation
            step(loop, inputs, targets)
            inputs, targets = next(loader, (inputs, targets))  # while the device is busy
        update(loop)
        mixture.after_step(loop.model)
        assert mixture.step == number + 1
    assert len(mixture.state_dict()["log"]) == 4


@pytest.mark.skipif(importlib.util.find_spec("torchtitan") is None, reason="torchtitan")
def test_the_loader_has_the_methods_of_torchtitan() -> None:
    titan: ModuleType = importlib.import_module("torchtitan.components.dataloader")
    wanted = titan.BaseDataLoader.__abstractmethods__ | {"state_dict", "load_state_dict"}
    assert wanted <= set(dir(own_loaders.MixtureDataLoader))
