"""The parts of a catalog that retuning reads: manifest, signals and final verdicts."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.format import tables
from tests.helpers.manifests import write_manifest

DOCUMENTS = [  # source, characters, sentences, brackets, the reason of the final verdict
    ("big", 100, 5.0, 0.0, None),
    ("big", 50, 2.0, 0.0, "c4.sentences"),
    ("big", 30, 1.0, 0.5, "c4.curly_bracket"),
    ("small", 10, 4.0, 0.0, "dedup.digest"),
    ("small", 7, 4.0, 0.25, "c4.curly_bracket"),
    (None, 3, None, None, None),
]


def write_signals(root: Path) -> Path:
    """Two parts, built with preset c4."""
    write_manifest(root, config={"quality": {"preset": "c4", "thresholds": {}}})
    for name, documents in (("a", DOCUMENTS[:4]), ("b", DOCUMENTS[4:])):
        measured, verdicts = [], []
        for number, (source, characters, sentences, brackets, reason) in enumerate(documents):
            found = {"rps_doc_num_sentences": sentences, "rps_doc_curly_bracket": brackets}
            signals = [(key, value) for key, value in found.items() if value is not None]
            measured.append(
                {"id_int": number, "source": source, "characters": characters, "signals": signals}
            )
            verdicts.append(
                {"id_int": number, "characters": characters, "failed_rules": 0, "reason": reason}
            )
        for folder, rows, schema in (
            ("signals", measured, tables.MEASURED),
            ("verdicts", verdicts, tables.VERDICTS),
        ):
            (root / folder).mkdir(exist_ok=True)
            pq.write_table(
                pa.Table.from_pylist(rows, schema),
                root / folder / f"{name}.parquet",
                row_group_size=3,
            )
    return root
