"""Compute quality signals for documents without any. Shipped signals stay as they are."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from pipeline.quality.signals.columns import signal_columns, signal_entries, signal_maps
from pipeline.quality.signals.measure import SIGNAL_NAMES, measure_signals


def fill_signals(signals: pa.MapArray, texts: pa.Array) -> pa.MapArray:
    """Return `signals` (SIGNALS_TYPE) with computed ones for documents without any `rps_` signal.

    If a document has some `rps_` signals, those that are missing or null stay so. Shipped `ccnet_`
    values stay too.
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
    """Return whether each document has no `rps_` signal."""
    owner, keys, _ = signal_entries(signals)
    shipped = pc.starts_with(keys, "rps_").to_numpy(zero_copy_only=False)
    has = np.zeros(len(signals), bool)
    has[owner[shipped]] = True
    return ~has
