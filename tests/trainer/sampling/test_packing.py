from itertools import chain

import numpy as np
import pytest
import torch

from data_catalog.format.tokens import IGNORED
from trainer.sampling.batches import Batch
from trainer.sampling.packing import packed_rows


def short_texts(sequences: int, length: int) -> Batch:
    """Return texts of log-normal lengths as those of MMLU: about 90 tokens on average."""
    drawn = np.random.default_rng(0).lognormal(np.log(80), 0.9, sequences).astype(int)
    sizes = torch.from_numpy(np.clip(drawn, 2, length))
    inputs = torch.arange(sequences * length).view(sequences, length)
    labels = torch.where(torch.arange(length) < sizes[:, None], inputs + 1, IGNORED)
    return Batch(inputs, labels, int(sizes.sum()))


@pytest.mark.parametrize("length", [512, 1024, 2048])
def test_a_batch_of_short_texts_has_little_padding(length: int) -> None:
    batch = short_texts(32, length)
    packed = batch.packed(together=True).cut()
    assert 1 - batch.total / batch.labels.numel() > 0.7
    assert 1 - batch.total / packed.labels.numel() < 0.03
    assert packed.labels.shape[1] <= length


def test_a_packed_batch_has_the_same_tokens() -> None:
    batch = short_texts(32, 512)
    batch.labels[3, :20] = IGNORED  # a prompt
    for together in (True, False):
        packed = batch.packed(together)
        assert packed.owners is not None
        for sequence in range(32):
            row, place = (packed.owners == sequence).nonzero(as_tuple=True)
            size = len(row)
            assert len(row.unique()) == 1
            assert bool((place.diff() == 1).all())
            assert packed.inputs[row, place].equal(batch.inputs[sequence, :size])
            assert packed.labels[row, place].equal(batch.labels[sequence, :size])
            assert bool((batch.labels[sequence, size:] == IGNORED).all())
        counted = packed.sums((packed.labels != IGNORED).float())
        assert counted.equal((batch.labels != IGNORED).sum(1).float())


def test_rows_are_full_but_not_too_long() -> None:
    sizes = np.array([6, 6, 6, 4, 4, 4])
    rows = packed_rows(sizes, 10)
    assert sorted(chain.from_iterable(rows)) == [0, 1, 2, 3, 4, 5]
    assert [int(sizes[row].sum()) for row in rows] == [10, 10, 10]
    assert len(packed_rows(np.array([6, 6, 6]), 10)) == 3
