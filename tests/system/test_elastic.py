"""One token stream for any number of processes, also when a run resumes with another number."""

import itertools
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.helpers.processes import run_in_process
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import records, tiny_config, write_config
from trainer.inputs import open_inputs
from trainer.sampling.batches import Batch, interval_batches
from trainer.sampling.plan import draw_interval, leaf_weights

STEPS, BATCH, EVERY = 30, 7, 5  # 7 sequences: no part of 2 or 3 processes is like another
SETTINGS = ("--set", f"training.steps={STEPS}", "--set", f"training.batch_sequences={BATCH}")


def run_one_and_elastic(folder: Path) -> None:
    """Run one process to its end. Then run 1, 3 and 2 processes, stopped by a SIGTERM to one."""
    from tests.helpers.forked import ended, start, wait_for_step

    assert ended(start(folder / "one.toml", *SETTINGS)) == [0]
    for world, stop_at, stopped in ((1, 4, 0), (3, 12, 2), (2, None, None)):
        children = start(folder / "elastic.toml", *SETTINGS, world=world)
        if stop_at is not None:
            wait_for_step(children, folder / "elastic", stop_at)
            os.kill(children[stopped], signal.SIGTERM)
        assert set(ended(children)) == {0 if stop_at is None else 143}, world


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elastic")
    write_tiny_catalog(folder / "catalog")
    for name in ("one", "elastic"):
        write_config(folder, folder / "catalog", folder / name)
    run_in_process(run_one_and_elastic, folder)
    return folder


def test_every_process_reads_its_part_of_the_one_stream(folder: Path) -> None:
    """Draw the run again from the weight log and compare with what each process has read."""
    config = tiny_config(folder / "catalog", folder / "one")
    inputs = open_inputs(config)
    used, expected = np.zeros(8, np.int64), []
    read = [record["batch"] for record in records(folder / "elastic", "train")]
    for row in pq.read_table(folder / "one" / "weights.parquet").to_pylist():
        weights = leaf_weights(np.array(row["sampling"]), inputs.basis.matrix)
        weights = inputs.drawn(weights, config)
        plan = draw_interval(
            row["stage"], weights, inputs.corpus.sequences, used, draws=EVERY * BATCH, seed=0
        )
        used = used + plan.counts(EVERY * BATCH)
        for batch in interval_batches(
            inputs.corpus, plan, range(EVERY), batch_sequences=BATCH, rank=0, world=1
        ):
            world = len(read[len(expected)])
            ends = [rank * BATCH // world for rank in range(world + 1)]
            parts = [
                Batch(batch.inputs[i:j], batch.labels[i:j], batch.total)
                for i, j in itertools.pairwise(ends)
            ]
            expected.append([part.digest() for part in parts])
    assert read == expected
    assert [world for world, _ in itertools.groupby(map(len, read))] == [1, 3, 2]


def test_the_losses_are_those_of_one_process(folder: Path) -> None:
    for kind, key in (("train", "loss"), ("train", "gradient_norm"), ("eval", "loss")):
        one, elastic = (
            [record[key] for record in records(folder / name, kind)] for name in ("one", "elastic")
        )
        np.testing.assert_allclose(elastic, one, rtol=1e-3)
    assert [r["tokens"] for r in records(folder / "elastic", "train")] == [
        r["tokens"] for r in records(folder / "one", "train")
    ]


def test_the_weights_are_those_of_one_process(folder: Path) -> None:
    logs = (
        pq.read_table(folder / name / "weights.parquet")["sampling"].to_pylist()
        for name in ("elastic", "one")
    )
    np.testing.assert_allclose(*map(np.array, logs), atol=1e-4)
    usage = (pq.read_table(folder / name / "usage.parquet") for name in ("elastic", "one"))
    assert next(usage).equals(next(usage))
