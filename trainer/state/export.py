"""Results of a finished run: usage of the leaves, and the model as a Hugging Face folder."""

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
    """Write a Parquet table of the use of every leaf that has sequences.

    Args:
        path: the file to write.
        used: number of draws per leaf.
        sequences: number of sequences per leaf.
    """
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
    """Return the number of drawn sequences divided by the number of distinct drawn sequences."""
    return float(used.sum() / np.minimum(used, sequences).sum())


def export_model(
    folder: Path, model: PreTrainedModel, files: CatalogFiles, is_leader: bool
) -> None:
    """Write the model and the catalog's tokenizer to `folder`, for `from_pretrained`.

    The folder `model` of a run marks the run as finished. All processes call this together, because
    each may hold a shard. Only the leader writes.

    Args:
        folder: the folder to write.
        model: the plain model.
        files: the open catalog, whose tokenizer is copied.
        is_leader: whether this process writes.
    """
    tensors = model_tensors(model)
    if is_leader:
        with replacing(folder) as temporary:
            shutil.copytree(files.layout.tokenizer, temporary)
            model.save_pretrained(temporary, state_dict=tensors)
