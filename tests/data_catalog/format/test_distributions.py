import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.errors import UserError
from data_catalog.format import tables
from data_catalog.format.distributions import effective_number, read_distribution, to_leaves
from data_catalog.format.layout import Layout, Levels
from tests.helpers.manifests import tiny_files

LEVELS = Levels((2, 4))


def test_a_domain_spreads_over_its_leaves_by_their_sequences():
    leaves = to_leaves(np.array([0.5, 0.5]), LEVELS, 2, np.array([1, 3, 5, 5]))
    assert leaves.tolist() == [0.125, 0.375, 0.25, 0.25]


def test_a_domain_without_sequences_gives_its_weight_to_the_others():
    assert to_leaves(np.array([0.9, 0.1]), LEVELS, 2, np.array([0, 0, 1, 1])).tolist() == [
        0,
        0,
        0.5,
        0.5,
    ]
    with pytest.raises(UserError, match="distribution at level 2"):
        to_leaves(np.array([1.0, 0.0]), LEVELS, 2, np.array([0, 0, 1, 1]))


def test_a_stored_distribution_is_read_back(tmp_path):
    rows = [
        ("law", "hard", 4, 1, 0.25),
        ("law", "hard", 4, 3, 0.75),
        ("law", "distance", 4, 0, 1.0),
        ("natural", "natural", 4, 2, 1.0),
    ]
    table = pa.Table.from_pylist(
        [dict(zip(tables.DISTRIBUTIONS.names, row, strict=True)) for row in rows],
        tables.DISTRIBUTIONS,
    )
    place = Layout(tmp_path).distributions
    place.parent.mkdir(parents=True)
    pq.write_table(table, place)
    assert read_distribution(tiny_files(tmp_path), "law", "hard", 4).tolist() == [0, 0.25, 0, 0.75]
    assert read_distribution(tiny_files(tmp_path), "natural", None, 4).tolist() == [0, 0, 1, 0]
    with pytest.raises(UserError, match=r"distribution art \(hard\) at level 4: not in .*: law"):
        read_distribution(tiny_files(tmp_path), "art", "hard", 4)
    with pytest.raises(UserError, match="level 8"):
        read_distribution(tiny_files(tmp_path), "law", "hard", 8)


def test_effective_number():
    assert effective_number(np.array([0.25, 0.25, 0.5, 0.0])) == pytest.approx(2**1.5)
    assert effective_number(np.array([1.0, 0.0])) == 1.0
