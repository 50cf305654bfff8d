"""What a finished run leaves: usage of the leaves, totals, and the model as a Hugging Face folder."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int
from transformers import PreTrainedModel

from data_catalog.format.files import CatalogFiles
from data_catalog.format.manifest import replacing
from trainer.state.full_state_dict import model_tensors


def write_usage(
    path: Path, used: Int[np.ndarray, " leaves"], sequences: Int[np.ndarray, " leaves"]
) -> None:
    """One row a leaf that has sequences: how many it has, how many were drawn, and how many epochs that is."""
    leaves = np.flatnonzero(sequences)
    columns: dict[str, Any] = {
        "leaf": leaves.astype(np.uint32),
        "drawn_sequences": used[leaves],
        "sequences": sequences[leaves],
        "epochs": used[leaves] / sequences[leaves],
    }
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def repeats(used: Int[np.ndarray, " leaves"], sequences: Int[np.ndarray, " leaves"]) -> float:
    """Drawn sequences over distinct drawn sequences: an epoch of a leaf draws each of its sequences once."""
    return float(used.sum() / np.minimum(used, sequences).sum())


def export_model(folder: Path, model: PreTrainedModel, files: CatalogFiles, leads: bool) -> None:
    """Write `folder`, with the catalog's tokenizer, for `from_pretrained`. That of a run's `model` means that the run is finished.

    All processes call this together, as each may have a shard; the leading one writes.
    """
    tensors = model_tensors(model)
    if leads:
        with replacing(folder) as temporary:
            shutil.copytree(files.layout.tokenizer, temporary)
            model.save_pretrained(temporary, state_dict=tensors)
