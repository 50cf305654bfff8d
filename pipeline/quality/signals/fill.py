"""Give documents that came without quality signals their own; what a source ships stays as it is."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from pipeline.quality.signals.columns import signal_columns, signal_entries, signal_maps
from pipeline.quality.signals.measure import SIGNAL_NAMES, measure_signals


def fill_signals(signals: pa.MapArray, texts: pa.Array) -> pa.MapArray:
    """`signals` (SIGNALS_TYPE) with the measured ones added to each document that has no `rps_` signal at all.

    A source that ships some has said all it has to say: what it left out or null stays so. A shipped `ccnet_` value stays too.
    """
    bare = np.flatnonzero(without_signals(signals))
    if not len(bare):
        return signals
    scores = measure_signals(texts.take(pa.array(bare)).to_pylist())
    shipped = signal_columns(signals.take(pa.array(bare)), SIGNAL_NAMES)
    scores[~np.isnan(np.column_stack([shipped[name] for name in SIGNAL_NAMES]))] = np.nan
    owner, keys, values = signal_entries(signals)
    row, column = np.nonzero(~np.isnan(scores))
    added = pa.array(SIGNAL_NAMES, pa.string()).take(pa.array(column))
    owner = np.concatenate((owner, bare[row]))
    order = np.argsort(owner, kind="stable")
    keys = pa.concat_arrays([keys, added]).take(pa.array(order))
    return signal_maps(
        owner[order], keys, np.concatenate((values, scores[row, column]))[order], len(signals)
    )


def without_signals(signals: pa.MapArray) -> Bool[np.ndarray, " documents"]:
    """Which documents have no `rps_` signal."""
    owner, keys, _ = signal_entries(signals)
    shipped = pc.starts_with(keys, "rps_").to_numpy(zero_copy_only=False)
    has = np.zeros(len(signals), bool)
    has[owner[shipped]] = True
    return ~has
