"""Checks of a model against a catalog, from its config and tokenizer alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoConfig, PreTrainedConfig

from data_catalog.errors import UserError, first_line
from data_catalog.format.damage import VERIFY_REMEDY, reading
from data_catalog.format.files import CatalogFiles
from trainer.config import Train


def check_models(config: Train, files: CatalogFiles) -> None:
    """Check the local models of a run before any is loaded. Hub names are not looked up.

    Raises:
        UserError: A model is missing, reads fewer tokens than a sequence has, has too few token
            embeddings, or has another tokenizer or end-of-text than the catalog.
    """
    reference = config.mixture.reference if config.mixture.mixer == "doremi" else None
    for key, path in (("model.path", config.model.path), ("mixture.reference", reference)):
        if path is not None:
            _check_local(key, Path(path), files)


def check_sizes(key: str, path: str, model: Any, vocabulary: int, sequence_tokens: int) -> None:
    """Check a model's config (of transformers) against the size of tokenizer and sequences.

    Args:
        key: Key of the run's config that names the model.
        path: Path or name of the model.
        model: Its config.
        vocabulary: Number of token ids of the catalog.
        sequence_tokens: Tokens per sequence.

    Raises:
        UserError: The model has fewer positions or token embeddings.
    """
    text = model.get_text_config()
    positions, rows = getattr(text, "max_position_embeddings", None), int(text.vocab_size)
    if isinstance(positions, int) and 0 < positions < sequence_tokens:
        raise UserError(
            f"{key} {path}: The model reads {positions} tokens. training.sequence_tokens is "
            f"{sequence_tokens}. Lower it, or use another model."
        )
    if rows < vocabulary:
        raise UserError(
            f"{key} {path}: The model has {rows} token embeddings. The catalog's tokenizer "
            f"needs {vocabulary}. Build the catalog with the model's tokenizer."
        )


def _check_local(key: str, path: Path, files: CatalogFiles) -> None:
    if not path.exists():
        if path.is_absolute() or len(path.parts) > 2 or path.parts[:1] == ("..",):
            raise UserError(f"{key} {path}: There is no such file or folder. Correct the path.")
        return
    try:
        model = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a damaged config raises errors of many kinds
        place = "folder" if path.is_dir() else "file"
        raise UserError(
            f"{key} {path}: There is no causal language model in this {place} "
            f"({first_line(error)}). Correct the path."
        ) from error
    vocabulary = files.manifest.tokenizer.vocabulary
    check_sizes(key, str(path), model, vocabulary, files.sequence_tokens)
    if path.is_dir():  # its weights were trained on the tokens of its own tokenizer
        _check_tokens(key, path, files)


def _check_tokens(key: str, folder: Path, files: CatalogFiles) -> None:
    """Check that the ids of a trained model mean the same as those of the catalog."""
    own, catalog = folder / "tokenizer.json", files.layout.tokenizer / "tokenizer.json"
    remedy = f"Restore the model of {key}."
    if own.is_file() and _ids(own, remedy) != _ids(catalog, VERIFY_REMEDY):
        raise UserError(
            f"{key} {folder}: The model has another tokenizer than the catalog, whose token ids "
            "have other meanings. Build the catalog with the model's tokenizer."
        )
    written, _ = PreTrainedConfig.get_config_dict(folder)  # a default of transformers says nothing
    ends = written.get("text_config", written).get("eos_token_id")
    ends = [ends] if isinstance(ends, int) else ends or []
    if ends and files.end_of_text not in ends:
        raise UserError(
            f"{key} {folder}: The model's end-of-text is token {ends[0]}. The catalog's is "
            f"{files.end_of_text}. Build the catalog with the model's tokenizer."
        )


def _ids(file: Path, remedy: str) -> Mapping[str, int]:
    with reading(file, remedy):
        ids: dict[str, int] = Tokenizer.from_file(str(file)).get_vocab(with_added_tokens=True)
    return ids
