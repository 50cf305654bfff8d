"""Random documents with leaves and tokens, as the store sorts them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.layout import Levels
from pipeline.shard.sorted_runs import IDS_COLUMN, run_columns

LEVELS = Levels((64, 4096))
SIGNALS = [
    "ccnet_perplexity",
    "ccnet_length",
    "rps_doc_word_count",
    "rps_doc_mean_word_length",
    "rps_doc_frac_unique_words",
]
SCHEMA = pa.schema([*tables.DOCUMENTS, pa.field(IDS_COLUMN, pa.large_list(pa.uint16()))])


def make_rows(folder: Path, part: int, n: int, leaves: int = LEVELS.leaves) -> None:
    """Write one input file of `n` random documents.

    A document has 60 to 130 words from a long-tailed vocabulary of 30,000, and a random leaf,
    split and list of token ids. Leaves are below `leaves`.
    """
    random = np.random.Generator(np.random.Philox(key=[11, part]))
    letters = np.random.Generator(np.random.Philox(key=[12, 0]))
    words = pa.array(
        [
            "".join(map(chr, letters.integers(97, 123, letters.integers(2, 11)))) + " "
            for _ in range(30_000)
        ]
    )
    lengths, sizes = random.integers(60, 131, n), random.integers(100, 201, n)
    text_words = words.take(
        pa.array((random.random(int(lengths.sum())) ** 3 * len(words)).astype(np.int64))
    )
    _, starts, letters_of_all = text_words.buffers()
    ends = np.r_[0, np.cumsum(lengths)]
    text_ends = np.frombuffer(starts, np.int32)[ends].astype(np.int64)
    text = pa.LargeStringArray.from_buffers(n, pa.py_buffer(text_ends.tobytes()), letters_of_all)
    number = random.integers(0, 2**64, n, np.uint64)
    names = pa.array([f"{value:016x}" for value in number.tolist()])
    made = {
        "doc_id": names,
        "id_int": number,
        "url": [f"https://site{value % 997}.example/{value}" for value in number.tolist()],
        "source": [f"site{value % 997}.example" for value in number.tolist()],
        "language": ["en"] * n,
        "digest": pa.array([f"{value:032x}" for value in number.tolist()]),
        "text": text,
        "characters": np.diff(text_ends),
        "tokens": sizes,
        "signals": pa.MapArray.from_arrays(
            np.arange(n + 1, dtype=np.int32) * len(SIGNALS),
            pa.array(SIGNALS * n),
            random.random(len(SIGNALS) * n),
        ),
        "failed_rules": np.zeros(n, np.uint64),
        # Skewed: the largest leaf has 37 times the mean number of rows.
        "leaf": (random.random(n) ** 1.5 * leaves).astype(np.uint32),
        "distance": random.random(n, np.float32),
        "split": np.where(random.random(n) < 0.02, "heldout", "train").astype(object),
        "ids": pa.LargeListArray.from_arrays(
            np.r_[0, np.cumsum(sizes)],
            random.integers(0, 8_192, int(sizes.sum())).astype(np.uint16),
        ),
    }
    table = pa.table([made[name] for name in run_columns()], names=run_columns()).cast(SCHEMA)
    pq.write_table(
        table,
        folder / f"{part:04d}.parquet",
        compression="lz4",
        row_group_size=8_192,
        use_dictionary=["source", "language"],
    )


def read_batches(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(4_096):
            yield pa.Table.from_batches([batch])
