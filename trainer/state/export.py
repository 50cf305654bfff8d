"""Results of a finished run: usage of the leaves, and the model as a Hugging Face folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Int
from transformers import PreTrainedModel

from data_catalog.format.files import CatalogFiles
from data_catalog.format.manifest import write_json
from data_catalog.temporary import replacing
from trainer.distributed import Team
from trainer.evaluation.tokenizer import open_tokenizer
from trainer.state.model_config import with_earlier_keys
from trainer.state.tensors import Named, is_sharded, model_tensors, whole_tensors

_ALIGNMENT = 64  # bytes, of a tensor in the file that tensors are gathered in


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
    folder: Path,
    model: PreTrainedModel,
    files: CatalogFiles,
    context: int,
    card: str,
    team: Team,
) -> None:
    """Write the model, the catalog's tokenizer and a model card, for `from_pretrained`.

    transformers 4.57 and 5 read the folder, and so does what is made on top of them. All processes
    call this together, because each may hold a shard. Only the leader writes.

    Args:
        folder: the folder to write.
        model: the plain model.
        files: the open catalog, whose tokenizer is copied.
        context: number of tokens that the model reads at once.
        card: text of the model card.
        team: the processes of the run.
    """
    if not team.is_leader:
        for _ in whole_tensors(model) if is_sharded(model) else ():
            pass  # takes part in gathering
        return
    with replacing(folder) as temporary:
        temporary.mkdir()
        gathered = temporary / "gathered"
        tensors = _gathered(model, gathered) if is_sharded(model) else model_tensors(model)
        model.save_pretrained(temporary, state_dict=tensors)
        gathered.unlink(missing_ok=True)
        config = json.loads((temporary / "config.json").read_text(encoding="utf-8"))
        write_json(temporary / "config.json", with_earlier_keys(config))
        write_tokenizer(temporary, files, context)
        (temporary / "README.md").write_text(card, encoding="utf-8")


def _gathered(model: PreTrainedModel, path: Path) -> Named:
    """Gather a sharded model, one tensor at a time, and return its tensors mapped from a file.

    All processes gather together. So the whole model is never in memory.
    """
    places = []
    with path.open("wb") as file:
        for name, tensor in whole_tensors(model):
            file.write(bytes(-file.tell() % _ALIGNMENT))
            places.append((name, file.tell(), tensor.dtype, tensor.shape))
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
        size = file.tell()
    content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    return {
        name: content[first : first + shape.numel() * dtype.itemsize].view(dtype).view(shape)
        for name, first, dtype, shape in places
    }


def context_tokens(model: PreTrainedModel, sequence_tokens: int) -> int:
    """Return the number of tokens that a model reads at once.

    It is the length of the training sequences if the model has no limit of its own.
    """
    config = model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or sequence_tokens)


def write_tokenizer(folder: Path, files: CatalogFiles, context: int) -> None:
    """Write the catalog's `tokenizer.json` unchanged, and a `tokenizer_config.json` for it.

    The config names a class that transformers 4 and 5 both have. That class takes everything but
    the names of special tokens from `tokenizer.json`.

    Args:
        folder: the folder of the model.
        files: the open catalog.
        context: maximum number of tokens per text.
    """
    own = files.layout.tokenizer
    for name in ("tokenizer.json", "chat_template.jinja"):
        if (own / name).is_file():
            shutil.copyfile(own / name, folder / name)
    end_of_text = open_tokenizer(files).id_to_token(files.end_of_text)
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": end_of_text,
            "eos_token": end_of_text,
            "pad_token": end_of_text,
            "model_max_length": context,
            # Decoding would otherwise remove spaces before punctuation that were in the text.
            "clean_up_tokenization_spaces": False,
        },
    )
