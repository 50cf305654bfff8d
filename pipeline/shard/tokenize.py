"""The catalog's tokenizer: a given one, or a byte-level BPE trained on a sample of the corpus."""

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from data_catalog.errors import UserError
from data_catalog.format.accounts import Account
from data_catalog.format.manifest import fingerprint, sha256_file
from pipeline.config import Tokenizer
from pipeline.parts import Part, make_part
from pipeline.verdicts import kept_batches

# Versions of the output:
# 1: byte-level BPE.
VERSION = 1
END_OF_TEXT = "<|endoftext|>"
logger = logging.getLogger(__name__)


def make_tokenizer(
    sources: Sequence[Part], verdicts: Part, folder: Path, config: Tokenizer, seed: int
) -> Part:
    """Write a Hugging Face tokenizer folder: trained on kept text, or copied from `tokenizer.path`.

    Raises:
        UserError: The given tokenizer cannot be loaded, is not a fast one, or has no
            end-of-text token.
    """
    path = config.path
    inputs = (
        _identity(path)
        if path
        else (verdicts.fingerprint, [part.fingerprint for part in sources], seed)
    )

    def make(out: Path) -> Account:
        from transformers import PreTrainedTokenizerFast  # noqa: PLC0415 - most of a second, and only here

        if path:
            tokenizer = _load_tokenizer(path)
        else:
            trained = _train(_sample(sources, verdicts, config), config.vocabulary)
            tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
                tokenizer_object=trained, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT
            )
        tokenizer.save_pretrained(out)
        return Account()

    return make_part(folder, fingerprint("tokenizer", VERSION, config, inputs), make)


def _identity(path: str) -> str:
    file = Path(path) / "tokenizer.json"
    return sha256_file(file) if file.is_file() else path


def _load_tokenizer(path: str):  # type: ignore[no-untyped-def]
    from transformers import AutoTokenizer  # noqa: PLC0415

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, use_fast=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"tokenizer.path {path}: not a tokenizer ({str(error).splitlines()[0]}). "
            "Give a folder with tokenizer.json or a name on the Hugging Face hub."
        ) from error
    if tokenizer.eos_token is None or not tokenizer.is_fast:
        raise UserError(
            f"tokenizer.path {path}: not a fast tokenizer with an end-of-text token. "
            "Give another tokenizer."
        )
    return tokenizer


def _sample(sources: Sequence[Part], verdicts: Part, config: Tokenizer) -> Iterator[str]:
    """Yield about `sample_characters` of kept text, chosen by document id in any order of work."""
    share = min(1.0, config.sample_characters / max(verdicts.account.kept.characters, 1))
    logger.info("tokenizer: training on %.0f %% of the kept text", 100 * share)
    limit = min(int(share * 2**64), 2**64 - 1)
    for part in sources:
        for batch in kept_batches(part, verdicts, ["id_int", "text"]):
            chosen = batch.filter(pc.less_equal(batch["id_int"], pa.scalar(limit, pa.uint64())))
            yield from chosen["text"].to_pylist()


def _train(texts: Iterator[str], vocabulary_size: int) -> FastTokenizer:
    tokenizer = FastTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@lru_cache(maxsize=2)
def load_tokenizer(file: Path) -> tuple[FastTokenizer, int]:
    """Return the tokenizer in `file` (tokenizer.json), and the id that ends a document."""
    tokenizer = FastTokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # Documents are hostile: one that contains "<|endoftext|>" must not be able to end itself.
    tokenizer.encode_special_tokens = True
    return tokenizer, end_of_text(file.parent)


def end_of_text(folder: Path) -> int:
    """Return the id of the tokenizer's end-of-text token."""
    from transformers import AutoTokenizer  # noqa: PLC0415

    return int(AutoTokenizer.from_pretrained(folder).eos_token_id)


def encode_texts(texts: Sequence[str], tokenizer: Part) -> pa.LargeListArray:
    """Return the token ids of each text, ended by end-of-text. No other special token is added."""
    fast, eos = load_tokenizer(tokenizer.folder / "tokenizer.json")
    kind = np.uint16 if fast.get_vocab_size() <= 2**16 else np.uint32
    ids = [
        np.asarray([*encoding.ids, eos], kind)
        for encoding in fast.encode_batch_fast(list(texts), add_special_tokens=False)
    ]
    offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    values = np.concatenate(ids) if ids else np.empty(0, kind)
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))


def vocabulary_size(tokenizer: Part) -> int:
    fast, _ = load_tokenizer(tokenizer.folder / "tokenizer.json")
    return int(fast.get_vocab_size())
