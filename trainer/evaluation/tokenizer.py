"""The catalog's tokenizer, and the number of bytes of text per token."""

import re

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

from data_catalog.format.damage import reading
from data_catalog.format.files import CatalogFiles

BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")  # tokens of single bytes in byte-fallback tokenizers


def open_tokenizer(files: CatalogFiles) -> Tokenizer:
    """Return the tokenizer of a catalog.

    Special tokens in a text are treated as plain characters, and none is added.

    Raises:
        DamagedFileError: The catalog's tokenizer is missing or damaged.
    """
    file = files.layout.tokenizer / "tokenizer.json"
    with reading(file):
        tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def token_ids(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Return the token ids of each text, without end-of-text."""
    return [
        encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    ]


def byte_lengths(tokenizer: Tokenizer) -> Int[np.ndarray, " vocabulary"]:
    """Return the number of UTF-8 bytes that each token adds to a text, 0 for special tokens.

    The numbers are exact for byte-level tokenizers, whose token names have one character per byte,
    and for byte-fallback tokens. For other tokenizers they are the bytes that a token adds to the
    decoded text, whose whitespace can differ from that of the original.
    """
    vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    added = tokenizer.get_added_tokens_decoder()
    names = {number: name for name, number in vocabulary.items() if number not in added}
    lengths = np.zeros(max(vocabulary.values()) + 1, np.int64)
    for number, token in added.items():
        lengths[number] = 0 if token.special else len(token.content.encode())
    if "ByteLevel" in repr(tokenizer.decoder):
        for number, name in names.items():
            lengths[number] = len(name)
        return lengths
    # A decoder may treat the first token of a text differently, so each token is decoded second.
    before = next(iter(names))
    alone = len(tokenizer.decode([before]).encode())
    for number, name in names.items():
        lengths[number] = (
            1
            if BYTE_TOKEN.fullmatch(name)
            else len(tokenizer.decode([before, number]).encode()) - alone
        )
    return lengths
