"""Two processes with DistributedDataParallel learn the weights of one."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from tests.helpers.processes import run_in_processes
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import tiny_config
from tests.trainer.library.test_mixture import SETTINGS, Loop, loader_of, mixture_of
from trainer.model.optimizer import learning_rate_at, set_learning_rate

pytestmark = pytest.mark.system
WORLD = 2


def train_in_process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD
    )
    config = tiny_config(folder / "catalog", folder / "two", **SETTINGS)
    mixture, loop = mixture_of(config), Loop(config)
    model = DistributedDataParallel(loop.model)
    for batch in DataLoader(mixture.dataset(rank=rank, world=WORLD), batch_size=3):
        set_learning_rate(loop.optimizer, learning_rate_at(config, mixture.step))
        logits = model(input_ids=batch["input_ids"]).logits
        loss = functional.cross_entropy(
            logits.flatten(0, 1), batch["labels"].flatten(), reduction="sum"
        )
        labels = (batch["labels"] >= 0).sum()
        dist.all_reduce(labels)
        (loss * WORLD / labels).backward()  # DDP takes the mean over the processes
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        loop.optimizer.step()
        loop.optimizer.zero_grad()
        mixture.after_step(model)
    mixture.finish(model)
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    catalog = write_tiny_catalog(tmp_path / "catalog")
    run_in_processes(train_in_process, WORLD, tmp_path)
    config = tiny_config(catalog, tmp_path / "one", **SETTINGS)
    mixture, loop = mixture_of(config), Loop(config)
    loop.run(mixture, 14, loader_of(mixture))
    one, two = (
        pq.read_table(tmp_path / name / "weights.parquet").to_pylist() for name in ("one", "two")
    )
    assert len(one) == len(two) == 4
    for row, other in zip(one, two, strict=True):
        np.testing.assert_allclose(row["sampling"], other["sampling"], rtol=1e-4)
        np.testing.assert_allclose(
            np.array(row["scores"], float), np.array(other["scores"], float), rtol=1e-3
        )
