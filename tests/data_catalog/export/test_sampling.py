"""Sampling by weights is in proportion, without replacement, and repeatable with a seed."""

import numpy as np
import pytest

from data_catalog.errors import UserError
from data_catalog.export.run_mixture import last_mixture, train_tokens
from data_catalog.export.sampling import LAST_DOCUMENT, ORDER_IN_DOMAIN, keyed, share_out, take
from data_catalog.format.files import open_files
from data_catalog.format.layout import Levels
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_run import write_run


def test_shares_equal_the_weights_if_there_are_enough_tokens():
    quota, exhausted = share_out(
        np.array([0.5, 0.25, 0.25, 0.0]), np.array([1000, 1000, 1000, 1000]), 400
    )
    assert quota.tolist() == [200, 100, 100, 0]
    assert not exhausted.any()


def test_missing_tokens_come_from_other_domains_by_weight():
    # 0.5 of 1000 is not there; what is left over makes the second run out too.
    quota, exhausted = share_out(np.array([0.5, 0.3, 0.2]), np.array([100, 400, 5000]), 1000)
    assert quota.tolist() == [100, 400, 500]
    assert exhausted.tolist() == [True, True, False]


def test_a_fully_used_domain_is_exhausted():
    quota, exhausted = share_out(np.array([0.75, 0.25, 0.0]), np.array([30, 10, 99]), 1000)
    assert (quota.tolist(), exhausted.tolist()) == ([30, 10, 0], [True, True, False])


def test_keyed_numbers_differ_by_seed_and_purpose_and_are_spread():
    ids = np.arange(4000, dtype=np.uint64)
    numbers = [
        keyed(ids, seed, purpose) for seed in (0, 1) for purpose in (ORDER_IN_DOMAIN, LAST_DOCUMENT)
    ]
    assert len({numbers[i][7] for i in range(4)}) == 4
    assert len(np.unique(numbers[0])) == 4000
    assert np.histogram(numbers[0] / 2.0**64, bins=4, range=(0, 1))[0] == pytest.approx(
        [1000] * 4, abs=100
    )
    assert abs(np.corrcoef(numbers[0].astype(float), numbers[1].astype(float))[0, 1]) < 0.05


def test_documents_are_taken_once_until_the_quota():
    ids, tokens = np.arange(50, dtype=np.uint64), np.full(50, 10)
    taken, owed = take(ids, tokens, 200.0, 0.0, seed=3)
    assert len(set(taken.tolist())) == len(taken) == 20
    assert owed == 0
    assert set(take(ids, tokens, 100.0, 0.0, seed=3)[0].tolist()) < set(
        taken.tolist()
    )  # more is the same, and more
    assert set(take(ids, tokens, 200.0, 0.0, seed=4)[0].tolist()) != set(taken.tolist())


def test_quotas_below_one_document_are_met_over_many_domains():
    rng = np.random.default_rng(0)
    owed, drawn = 0.0, []
    for domain in range(2000):
        ids = np.arange(domain * 3, domain * 3 + 3, dtype=np.uint64)
        tokens = rng.integers(100, 2000, 3)
        taken, owed = take(ids, tokens, 50.0, owed, seed=0)
        drawn.append(int(tokens[taken].sum()))
    assert sum(drawn) == pytest.approx(100_000, abs=2000)
    assert sum(drawn[:1000]) == pytest.approx(50_000, rel=0.1)


def test_long_documents_are_sampled_in_proportion_to_their_tokens():
    """One of two documents is far longer than the quota.

    On average over seeds the quota is met, and the long document is taken in a quarter of them.
    """
    tokens, shares = np.array([100, 1000]), np.zeros(2)
    for seed in range(3000):
        taken, _ = take(np.array([5, 9], dtype=np.uint64), tokens, 300.0, 0.0, seed)
        shares[taken] += tokens[taken] / 3000
    # 100 + 0.2 * 1000 tokens if the short document is first, and 0.3 * 1000 otherwise.
    assert shares.sum() == pytest.approx(300, rel=0.1)
    assert shares[1] == pytest.approx(250, rel=0.1)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return write_tiny_catalog(tmp_path_factory.mktemp("catalog") / "catalog")


LEVELS = Levels((2, 8))


def weights_of(folder, catalog):
    level, weights = last_mixture(folder, open_files(catalog))
    assert weights.sum() == pytest.approx(1)
    return level, weights


def test_last_weights_of_a_run_over_domains(catalog, tmp_path):
    run = write_run(tmp_path / "run", basis=("spe", "other"), level=8)
    level, weights = weights_of(run, catalog)
    import pyarrow.parquet as pq

    last = pq.read_table(run / "weights.parquet")["sampling"].to_pylist()[-1]
    assert level == 8
    assert weights[[2, 5]].tolist() == pytest.approx(last)  # `spe` is leaf 2, `other` leaf 5
    assert weights.sum() == pytest.approx(weights[[2, 5]].sum())


def test_weights_of_each_mixer_are_read(catalog, tmp_path):
    tokens = train_tokens(open_files(catalog), 8)
    natural = weights_of(
        write_run(tmp_path / "natural", mixer="natural", basis=("natural",), level=8), catalog
    )[1]
    assert natural == pytest.approx(
        tokens / tokens.sum(), abs=0.02
    )  # the tiny catalog's own counts held-out tokens too
    even = weights_of(
        write_run(tmp_path / "uniform", mixer="uniform", basis=("uniform",), level=8), catalog
    )[1]
    assert even == pytest.approx(np.where(np.arange(8) == 6, 0, 1 / 7))  # leaf 6 is empty
    root = weights_of(
        write_run(
            tmp_path / "temperature",
            mixer="temperature",
            basis=("temperature",),
            level=8,
            mixture={"temperature": 2.0},
        ),
        catalog,
    )[1]
    assert root == pytest.approx(np.sqrt(tokens) / np.sqrt(tokens).sum())
    domains = weights_of(
        write_run(tmp_path / "domains", basis=("0", "1"), level=2, mixture={"basis": "domains"}),
        catalog,
    )
    assert domains[0] == 2
    assert domains[1][0] > 0.5
    static = write_run(
        tmp_path / "static",
        mixer="static",
        basis=("static",),
        level=8,
        usage=[(1, 9), (3, 9), *[(0, 9)] * 6],
        mixture={"file": "gone.csv"},
    )
    per_sequence = [959 / 10, 575 / 6]  # labels of leaves 0 and 1, in sequences of 100
    tokens = np.array([1, 3]) * per_sequence
    assert weights_of(static, catalog)[1][:3] == pytest.approx([*tokens / tokens.sum(), 0])
    capped = write_run(
        tmp_path / "unimax",
        mixer="unimax",
        basis=("unimax",),
        level=8,
        usage=[(3, 9), (1, 9), *[(0, 9)] * 6],
    )
    tokens = np.array([3, 1]) * per_sequence
    assert weights_of(capped, catalog)[1][:3] == pytest.approx([*tokens / tokens.sum(), 0])
    replay = write_run(
        tmp_path / "replay",
        mixer="replay",
        basis=("0", "1"),
        level=2,
        mixture={"file": str(tmp_path / "domains" / "weights.parquet")},
    )
    assert weights_of(replay, catalog)[1] == pytest.approx(domains[1])


def test_missing_and_unfinished_runs_are_user_errors(catalog, tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        last_mixture(tmp_path, open_files(catalog))
    with pytest.raises(UserError, match=r"weights .*going: "):
        last_mixture(write_run(tmp_path / "going", usage=None), open_files(catalog))
    with pytest.raises(UserError, match="distribution goal"):
        last_mixture(write_run(tmp_path / "else", level=8), open_files(catalog))
    ring = write_run(
        tmp_path / "ring", mixer="replay", mixture={"file": str(tmp_path / "ring")}, level=8
    )
    with pytest.raises(UserError, match="ring"):
        last_mixture(ring, open_files(catalog))
    (tmp_path / "else" / "weights.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match=r"else/weights\.parquet: cannot be read"):
        last_mixture(tmp_path / "else", open_files(catalog))
