import numpy as np
import pyarrow as pa

from data_catalog.format.columns import SIGNALS_TYPE
from pipeline.quality.signals.columns import signal_columns, signal_entries, signal_maps

FOUND = pa.array(
    [[("a", 1.0)], None, [("b", None), ("a", 2.0), ("c", 3.0)], [], [("a", 4.0), ("a", 5.0)]],
    SIGNALS_TYPE,
)


def test_columns_of_absent_null_and_repeated_names():
    found = signal_columns(FOUND, ["a", "b", "z"])
    np.testing.assert_array_equal(found["a"], [1, np.nan, 2, np.nan, 5])
    assert np.isnan([found["b"], found["z"]]).all()
    assert signal_columns(FOUND, []) == {}


def test_a_slice_has_its_own_entries():
    owner, keys, values = signal_entries(FOUND.slice(2, 2))
    assert (owner.tolist(), keys.to_pylist()) == ([0, 0, 0], ["b", "a", "c"])
    np.testing.assert_array_equal(values, [np.nan, 2, 3])
    np.testing.assert_array_equal(signal_columns(FOUND.slice(2, 2), ["a"])["a"], [2, np.nan])


def test_maps_give_back_what_entries_took_apart():
    back = signal_maps(*signal_entries(FOUND), len(FOUND))
    assert back.type == SIGNALS_TYPE
    assert back.to_pylist() == [[] if row is None else row for row in FOUND.to_pylist()]
