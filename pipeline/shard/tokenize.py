"""The catalog's tokenizer: a given one, or a byte-level BPE trained on a sample of the corpus."""

import logging
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from data_catalog.errors import UserError, first_line
from data_catalog.format.accounts import Account
from data_catalog.format.manifest import fingerprint, sha256_file
from data_catalog.place import Folder
from pipeline.config import Tokenizer
from pipeline.parts import Part, make_part
from pipeline.refusals import or_none
from pipeline.shard.text_sample import choose_blocks
from pipeline.verdicts import check_share, kept_batches

# Versions of the output:
# 1: byte-level BPE.
# 2: long words are cut for training.
# 3: a large corpus is sampled in blocks.
VERSION = 3
END_OF_TEXT = "<|endoftext|>"
NO_TOKENS = "no_tokens"  # reason of a verdict
NO_TOKENS_DETAIL = "the tokenizer refuses the text, or gives no tokens for it"
MAXIMUM_SAMPLE_TEXT = 2**17  # characters of one text that a tokenizer is trained on
MAXIMUM_SAMPLE_WORD = 2**12  # characters between spaces, or of spaces: time grows with the square
# The lookbehind makes the search take linear time: only the start of a word is tried.
_LONG = f"{{{MAXIMUM_SAMPLE_WORD + 1},}}"
_LONG_WORD = re.compile(rf"(?<!\S)\S{_LONG}|(?<!\s)\s{_LONG}")
logger = logging.getLogger(__name__)


def make_tokenizer(
    sources: Sequence[Part], verdicts: Sequence[Part], folder: Folder, config: Tokenizer, seed: int
) -> Part:
    """Write a Hugging Face tokenizer folder: trained on kept text, or copied from `tokenizer.path`.

    Args:
        sources: The source parts.
        verdicts: The part with the verdicts on each source part.
        folder: The part's folder.
        config: The tokenizer to make.
        seed: Seed of the build.

    Raises:
        UserError: The given tokenizer cannot be used, see `check_tokenizer`.
    """
    path = config.path
    kept = sorted({part.fingerprint for part in verdicts})
    inputs = (
        _identity(path)
        if path
        else (kept[0] if len(kept) == 1 else kept, [part.fingerprint for part in sources], seed)
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


def check_tokenizer(config: Tokenizer) -> None:
    """Check a given tokenizer before any work starts. A trained one needs no check.

    Raises:
        UserError: It cannot be loaded, is not a fast one, has no end-of-text token, or has an id
            that does not fit 32 bits.
    """
    if config.path is None:
        return
    tokenizer = _load_tokenizer(config.path)
    largest = largest_id(tokenizer.backend_tokenizer)
    if largest > np.iinfo(np.uint32).max:
        raise UserError(
            f"tokenizer.path {config.path}: its largest id is {largest}, and ids are stored in "
            "32 bits. Give another tokenizer."
        )


def _identity(path: str) -> str:
    file = Path(path) / "tokenizer.json"
    return sha256_file(file) if file.is_file() else path


def _load_tokenizer(path: str) -> Any:
    from transformers import AutoTokenizer  # noqa: PLC0415

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, use_fast=True, trust_remote_code=False)
    except Exception as error:  # damaged files raise errors of many kinds
        raise UserError(
            f"tokenizer.path {path}: not a tokenizer ({first_line(error)}). "
            "Give a folder with tokenizer.json or a name on the Hugging Face hub."
        ) from error
    if not tokenizer.is_fast:
        raise UserError(
            f"tokenizer.path {path}: not a fast tokenizer. Give one with a tokenizer.json."
        )
    if tokenizer.eos_token is None or tokenizer.eos_token_id is None:
        raise UserError(
            f"tokenizer.path {path}: it has no end-of-text token, which ends each document. "
            "Set eos_token in its tokenizer_config.json, or give another tokenizer."
        )
    return tokenizer


def _sample(sources: Sequence[Part], verdicts: Sequence[Part], config: Tokenizer) -> Iterator[str]:
    """Yield about `sample_characters` of kept text, chosen by document id in any order of work.

    Of a long text the beginning is taken, and long words are cut, as in genomes and base64. Only
    the blocks of `choose_blocks` are read.
    """
    blocks = choose_blocks(sources, verdicts, config.sample_characters)
    share = min(1.0, config.sample_characters / max(blocks.characters, 1))
    logger.info(
        "tokenizer: training on %.0f %% of the text in %d files", 100 * share, len(blocks.groups)
    )
    limit = min(int(share * 2**64), 2**64 - 1)
    for number, groups in blocks.groups.items():
        part, final = sources[number], verdicts[number]
        for batch in kept_batches(part, final, ["id_int", "text"], groups):
            chosen = batch.filter(pc.less_equal(batch["id_int"], pa.scalar(limit, pa.uint64())))
            beginnings = pc.utf8_slice_codeunits(chosen["text"], 0, MAXIMUM_SAMPLE_TEXT)
            for text in beginnings.to_pylist():
                yield from cut_words(text)


def cut_words(text: str) -> Iterator[str]:
    """Yield a text in pieces that end after each `MAXIMUM_SAMPLE_WORD` characters of one word."""
    start = 0
    for word in _LONG_WORD.finditer(text):
        for end in range(word.start() + MAXIMUM_SAMPLE_WORD, word.end(), MAXIMUM_SAMPLE_WORD):
            yield text[start:end]
            start = end
    yield text[start:]


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
    """Return the token ids of each text, ended by end-of-text. No other special token is added.

    A text that the tokenizer refuses or gives no tokens for has null. Ids are uint16 if every id of
    the tokenizer fits, otherwise uint32.
    """
    file = tokenizer.folder / "tokenizer.json"
    fast, eos = load_tokenizer(file)
    kind = _id_type(file)

    def encode(some: list[str]) -> list[np.ndarray]:
        encodings = fast.encode_batch_fast(some, add_special_tokens=False)
        return [np.asarray([*encoding.ids, eos], kind) for encoding in encodings]

    encoded = or_none(encode, texts) if texts else []
    ids = [row if row is not None and len(row) > 1 else None for row in encoded]
    lengths = [0 if row is None else len(row) for row in ids]
    offsets = pa.array(np.cumsum([0, *lengths], dtype=np.int64))
    given = [row for row in ids if row is not None]
    values = pa.array(np.concatenate(given) if given else np.empty(0, kind))
    if len(given) == len(ids):
        return pa.LargeListArray.from_arrays(offsets, values)
    refused = pa.array([row is None for row in ids])
    return pa.LargeListArray.from_arrays(offsets, values, mask=refused)


def check_encoded(lost: int, documents: int, place: str) -> None:
    """Check that the tokenizer works: it fails for single documents, not for most of them.

    Args:
        lost: Number of documents without tokens.
        documents: Number of documents.
        place: Name of the file or target, for messages.

    Raises:
        UserError: See `check_share`.
    """
    check_share(
        lost,
        documents,
        place,
        "tokens",
        f"tokenizer.path: the tokenizer gives no tokens for {lost} of the {documents} "
        f"documents in {place}. Give a tokenizer that knows their characters.",
    )


@lru_cache(maxsize=2)
def _id_type(file: Path) -> type[np.uint16] | type[np.uint32]:
    fast, eos = load_tokenizer(file)
    return np.uint16 if max(largest_id(fast), eos) <= np.iinfo(np.uint16).max else np.uint32


def largest_id(fast: FastTokenizer) -> int:
    """Return the largest id of a tokenizer. Ids may have gaps, so it can exceed their number."""
    return max(fast.get_vocab(with_added_tokens=True).values(), default=0)


def vocabulary_size(tokenizer: Part) -> int:
    """Return the number of ids that a model needs: one more than the largest."""
    fast, eos = load_tokenizer(tokenizer.folder / "tokenizer.json")
    return max(largest_id(fast), eos) + 1
