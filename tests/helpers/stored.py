"""Stored documents made by hand."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from data_catalog.format import tables
from data_catalog.format.layout import Layout
from pipeline.shard.merge import merge_runs
from pipeline.shard.sorted_runs import SortedRuns, write_runs


def document_table(
    leaf: Sequence[int],
    number: Sequence[int] | None = None,
    held_out: Sequence[bool] | None = None,
    doc_id: Sequence[str] | None = None,
    text: Sequence[str] | None = None,
    ids: Sequence[Sequence[int]] | None = None,
) -> pa.Table:
    """Return a table for `write_runs`.

    By default document i has the id "i", the number i, the text "x" and the tokens [leaf, 0].
    """
    n = len(leaf)
    texts = ["x"] * n if text is None else text
    lists = [[value, 0] for value in leaf] if ids is None else ids
    columns = {
        "doc_id": [str(i) for i in range(n)] if doc_id is None else doc_id,
        "id_int": list(range(n)) if number is None else number,
        "url": [""] * n,
        "source": ["site"] * n,
        "language": ["en"] * n,
        "digest": [f"{i:032x}" for i in range(n)],
        "text": texts,
        "characters": list(map(len, texts)),
        "tokens": list(map(len, lists)),
        "signals": [[]] * n,
        "failed_rules": [0] * n,
        "leaf": leaf,
        "distance": [0.0] * n,
        "split": ["heldout" if held else "train" for held in held_out or [False] * n],
    }
    table = pa.table(
        {
            name: pa.array(columns[name], field.type)
            for name, field in zip(tables.DOCUMENTS.names, tables.DOCUMENTS, strict=True)
        }
    )
    return table.append_column("ids", pa.array(lists, pa.large_list(pa.uint16())))


def store(
    table: pa.Table, folder: Path, tops: int, span: int, file_bytes: int = 2**30
) -> tuple[Layout, pa.Table]:
    """Store documents without a manifest, and return the layout and the offsets."""
    layout = Layout(folder, 1)
    (folder / "run").mkdir(parents=True)
    write_runs([table], folder / "run", 2**30, [0, tops * span])
    offsets = []
    for top in range(tops):
        out = folder / f"shard-{top}"
        out.mkdir()
        offsets.append(
            merge_runs(
                [SortedRuns(folder / "run")], top * span, (top + 1) * span, out, file_bytes, top
            )[0]
        )
        for file in sorted(out.iterdir()):
            number = int(file.stem[-4:])
            place = (
                layout.documents(top, number)
                if file.suffix == ".parquet"
                else layout.tokens(top, number)
            )
            place.parent.mkdir(parents=True, exist_ok=True)
            file.rename(place)
    return layout, pa.concat_tables(offsets)
