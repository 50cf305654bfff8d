import numpy as np
import pytest

from data_catalog.errors import UserError
from data_catalog.format.layout import Layout, Levels


def test_leaf_numbers_are_prefix_codes():
    levels = Levels((2, 4, 12))
    leaves = np.arange(12)
    assert levels.domains(leaves, 4).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert levels.domains(leaves, 2).tolist() == [0] * 6 + [1] * 6
    assert levels.domains(leaves, 12).tolist() == list(range(12))
    assert levels.span(4) == 3


@pytest.mark.parametrize("granularities", [(), (4, 6), (4, 4), (8, 4), (0,)])
def test_levels_must_nest(granularities):
    with pytest.raises(UserError, match="granularities"):
        Levels(granularities)


def test_a_missing_level_is_refused():
    with pytest.raises(UserError, match=r"level 3: .*\[2, 4\]"):
        Levels((2, 4)).span(3)


def test_tables_belong_to_a_version(tmp_path):
    assert Layout(tmp_path, 12).offsets == tmp_path / "versions" / "0012" / "offsets.parquet"
    assert Layout(tmp_path, 12).signals("a") == tmp_path / "signals" / "0012-a.parquet"
    assert (
        Layout(tmp_path, 12).documents(3, 4)
        == tmp_path / "documents" / "top=0003" / "part-0004.parquet"
    )
