"""Quality signals of a batch of documents, as an Arrow map or as one array per signal."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from data_catalog.format.columns import SIGNALS_TYPE


def signal_entries(
    signals: pa.MapArray,
) -> tuple[Int[np.ndarray, " entries"], pa.StringArray, Float[np.ndarray, " entries"]]:
    """Return the document, name and value (NaN for null) of every entry, in order."""
    offsets = signals.offsets.to_numpy()  # offsets of a slice refer to all entries
    first, count = int(offsets[0]), int(offsets[-1] - offsets[0])
    owner = np.repeat(np.arange(len(signals)), np.diff(offsets))
    return (
        owner,
        signals.keys.slice(first, count),
        signals.items.slice(first, count).to_numpy(zero_copy_only=False),
    )


def signal_columns(
    signals: pa.MapArray, names: Sequence[str]
) -> dict[str, Float[np.ndarray, " documents"]]:
    """Return each named signal of every document, NaN where it is absent or null.

    If a document has a name twice, the last entry counts.
    """
    owner, keys, values = signal_entries(signals)
    code = pc.fill_null(pc.index_in(keys, value_set=pa.array(names, pa.string())), -1).to_numpy(
        zero_copy_only=False
    )
    table = np.full((len(names), len(signals)), np.nan)
    known = code >= 0
    table[code[known], owner[known]] = values[known]
    return dict(zip(names, table, strict=True))


def signal_maps(
    owner: Int[np.ndarray, " entries"],
    keys: pa.StringArray,
    values: Float[np.ndarray, " entries"],
    documents: int,
) -> pa.MapArray:
    """Return SIGNALS_TYPE from entries, as the inverse of `signal_entries`.

    `owner` is ascending. NaN becomes null.
    """
    offsets = pa.array(np.searchsorted(owner, np.arange(documents + 1)), pa.int32())
    return pa.MapArray.from_arrays(
        offsets, keys, pa.array(values, pa.float64(), from_pandas=True)
    ).cast(SIGNALS_TYPE)
