import math
from pathlib import Path

import numpy as np
import pytest
import torch

from data_catalog.format.files import open_files
from data_catalog.format.layout import Levels
from data_catalog.format.tokens import TokenStore, open_target, open_tokens
from tests.helpers.tiny_catalog import LEVELS, write_tiny_catalog
from tests.helpers.tiny_models import tiny_engine
from trainer.config import Model
from trainer.distributed import process_slice
from trainer.evaluation.evaluate import (
    EvaluationSet,
    domain_sets,
    evaluation_set,
    held_out_losses,
    ratio_and_error,
)
from trainer.evaluation.tokenizer import byte_lengths, open_tokenizer
from trainer.model.engine import Engine
from trainer.model.model import build_model
from trainer.sampling.batches import Pool

LENGTH = 16


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_catalog(tmp_path_factory.mktemp("catalog"))


@pytest.fixture(scope="module")
def pool(catalog: Path) -> Pool:
    return Pool(open_tokens(open_files(catalog), "heldout"), LENGTH, "heldout")


@pytest.fixture(scope="module")
def engine() -> Engine:
    model = build_model(Model(hidden_size=32, layers=2, heads=2), 64, 0, LENGTH, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return tiny_engine(model, micro=5)


def sequences(leaves: list[int]) -> Pool:
    """Return a pool with the given number of sequences in each leaf. All tokens are 1."""
    tokens = np.array(leaves) * LENGTH + 1
    tokens[np.array(leaves) == 0] = 0
    store = TokenStore(
        {0: np.ones(tokens.sum(), np.uint16)},
        np.zeros_like(tokens),
        np.cumsum(tokens) - tokens,
        tokens,
        0,
    )
    return Pool(store, LENGTH, "test")


def test_loss_error_and_bytes_of_a_set(catalog: Path, pool: Pool, engine: Engine) -> None:
    target = Pool(open_target(open_files(catalog), "spe", "test"), LENGTH, "test")
    sets = [evaluation_set("general", pool, 9, 0), evaluation_set("target/test", target, 100, 0)]
    found = held_out_losses(engine, sets, np.arange(64) + 5)
    assert [(one.set, one.sequences) for one in found] == [("general", 9), ("target/test", 12)]
    for one, chosen in zip(found, sets, strict=True):
        batch = chosen.pool.read(chosen.leaves, chosen.rows)
        with torch.no_grad():
            logs = engine.model(batch.inputs).logits.double().log_softmax(-1)
        kept = batch.labels != -100
        nats = (
            (-logs.gather(-1, batch.labels.clamp(min=0)[..., None])[..., 0] * kept).sum(1).numpy()
        )
        tokens = kept.sum(1).numpy()
        loss = nats.sum() / tokens.sum()
        assert len(set(tokens.tolist())) > 1  # so that a mean of sequences' means would differ
        assert one.loss == pytest.approx(loss, rel=1e-5)
        squares = ((nats - loss * tokens) ** 2).sum()
        assert one.error == pytest.approx(
            math.sqrt(len(nats) / (len(nats) - 1) * squares) / tokens.sum(), rel=1e-4
        )
        text = sum(token + 5 for token in batch.labels[kept].tolist())
        assert one.bits_per_byte == pytest.approx(nats.sum() / math.log(2) / text, rel=1e-5)
        assert one.record().keys() == {"set", "loss", "error", "sequences", "bits_per_byte"}


def test_the_error_is_the_spread_of_samples_around_the_population() -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(1, 40, 20_000).astype(float)
    values = 3 * sizes + random.normal(0, 1, 20_000) * sizes
    off = []
    for sample in random.integers(0, 20_000, (400, 50)):
        r, t = values[sample], sizes[sample]
        ratio, error = ratio_and_error(
            50, r.sum(), t.sum(), (r * r).sum(), (r * t).sum(), (t * t).sum()
        )
        off.append((ratio - values.sum() / sizes.sum()) / error)
    assert np.std(off) == pytest.approx(1, abs=0.1)
    assert math.isnan(ratio_and_error(1, 2.0, 1.0, 4.0, 2.0, 1.0)[1])


def test_every_top_level_domain_has_its_own_sequences() -> None:
    levels = Levels((4, 8))
    chosen = domain_sets(
        sequences([30, 10, 0, 3, 9, 0, 200, 100]), levels, maximum_sequences=80, seed=0
    )
    assert [one.name for one in chosen] == [
        "domain/0",
        "domain/2",
        "domain/3",
    ]  # of the second there are three sequences only
    assert [len(one.leaves) for one in chosen] == [34, 9, 34]
    for one, domain in zip(chosen, (0, 2, 3), strict=True):
        assert set((one.leaves // 2).tolist()) == {domain}
        assert len(set(zip(one.leaves.tolist(), one.rows.tolist(), strict=True))) == len(
            one.leaves
        )  # none twice
    spread = np.bincount(chosen[2].leaves, minlength=8)[6:]
    assert spread.min() > 4  # 2 to 1, as the leaves' sizes
    again = domain_sets(
        sequences([30, 10, 0, 3, 9, 0, 200, 100]), levels, maximum_sequences=80, seed=0
    )
    assert [one.rows.tolist() for one in again] == [one.rows.tolist() for one in chosen]


def test_the_sequences_of_all_domains_are_bounded() -> None:
    levels = Levels((64,))
    assert (
        sum(
            len(one.leaves)
            for one in domain_sets(sequences([100] * 64), levels, maximum_sequences=1024, seed=0)
        )
        == 1024
    )
    assert domain_sets(sequences([100] * 64), levels, maximum_sequences=0, seed=0) == []
    assert [
        len(one.leaves)
        for one in domain_sets(sequences([100] * 64), levels, maximum_sequences=10, seed=0)
    ] == [8] * 64
    assert [
        len(one.leaves)
        for one in domain_sets(sequences([20] * 64), levels, maximum_sequences=5000, seed=0)
    ] == [20] * 64


def test_losses_by_domain_add_up(engine: Engine, catalog: Path) -> None:
    lengths, pool = (
        byte_lengths(open_tokenizer(open_files(catalog))),
        Pool(open_tokens(open_files(catalog), "train"), LENGTH, "train"),
    )
    domains = held_out_losses(
        engine, domain_sets(pool, LEVELS, maximum_sequences=1000, seed=0), lengths
    )
    leaves, rows = pool.locate(np.arange(pool.total))
    whole = held_out_losses(engine, [EvaluationSet("all", pool, leaves, rows)], lengths)[0]
    tokens = np.bincount(leaves // 4, pool.targets(leaves, rows))
    assert [(one.set, one.sequences) for one in domains] == [("domain/0", 165), ("domain/1", 50)]
    assert sum(
        one.loss * n for one, n in zip(domains, tokens, strict=True)
    ) / tokens.sum() == pytest.approx(whole.loss, rel=1e-6)


def test_the_parts_of_all_processes_are_the_whole_set() -> None:
    assert [list(range(7))[process_slice(7, rank, 3)] for rank in range(3)] == [
        [0, 1],
        [2, 3],
        [4, 5, 6],
    ]


def test_little_padding_is_run_and_the_losses_are_the_same(engine: Engine) -> None:
    """A set of 20 documents of 11 to 30 tokens and two of 250, in sequences of 256."""
    sizes = np.array([*range(11, 31), 250, 250])
    ids = np.random.default_rng(0).integers(0, 64, sizes.sum()).astype(np.uint16)
    begins = np.cumsum(sizes) - sizes
    pool = Pool(TokenStore({0: ids}, np.zeros_like(sizes), begins, sizes, 0), 256, "texts")
    chosen = evaluation_set("texts", pool, 100, 0)
    shapes: list[tuple[int, ...]] = []

    def record(_: object, __: object, given: dict[str, torch.Tensor]) -> None:
        shapes.append(tuple(given["input_ids"].shape))

    base = engine.model.base_model
    watch = base.register_forward_pre_hook(record, with_kwargs=True)
    found = held_out_losses(engine, [chosen], np.ones(64, np.int64))[0]
    watch.remove()
    assert shapes == [(4, 256)]  # 866 labels
    batch = pool.read(chosen.leaves, chosen.rows)
    assert found.loss == pytest.approx(float(engine.losses(batch).sum()) / batch.total, rel=1e-6)
