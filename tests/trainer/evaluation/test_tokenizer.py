from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from data_catalog import UserError
from data_catalog.format.files import open_files
from tests.helpers.manifests import tiny_files
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_questions import END, add_quiz, byte_level
from trainer.evaluation.tokenizer import byte_lengths, open_tokenizer, token_ids

TEXTS = ["naïve café, 東京 🙂\n\tx", "plain words", f"says {END} itself", " "]


def test_bytes_of_a_byte_level_tokenizer_sum_to_those_of_the_text(tmp_path: Path) -> None:
    tokenizer = open_tokenizer(open_files(add_quiz(write_tiny_catalog(tmp_path / "catalog"))))
    lengths = byte_lengths(tokenizer)
    assert [int(lengths[ids].sum()) for ids in token_ids(tokenizer, TEXTS)] == [
        len(text.encode()) for text in TEXTS
    ]
    assert lengths[tokenizer.token_to_id(END)] == 0


def test_added_tokens_have_their_own_bytes() -> None:
    tokenizer = byte_level(TEXTS)
    tokenizer.add_tokens(["½½"])
    ids = tokenizer.encode("a½½b").ids
    assert tokenizer.token_to_id("½½") in ids
    assert byte_lengths(tokenizer)[ids].sum() == len("a½½b".encode())


def test_bytes_of_a_byte_fallback_tokenizer() -> None:
    """Like Llama 2's, it writes blanks as U+2581 and unknown characters as byte tokens."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "é"]
    tokenizer = Tokenizer(
        models.BPE(
            {piece: i for i, piece in enumerate(pieces)},
            [("▁", "a")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    blanks = decoders.Replace("▁", " ")
    tokenizer.decoder = decoders.Sequence(
        [blanks, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    text = "b a aé 東b"
    ids = tokenizer.encode(text).ids
    assert "<0xE6>" in tokenizer.encode(text).tokens
    assert byte_lengths(tokenizer)[ids].sum() == len(text.encode())


def test_a_word_includes_the_blank_before_it(tmp_path: Path) -> None:
    tokenizer = open_tokenizer(open_files(write_tiny_catalog(tmp_path / "catalog")))
    np.testing.assert_array_equal(byte_lengths(tokenizer)[[3, 12]], [len(" w3"), len(" w12")])


def test_a_catalog_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.json: "):
        open_tokenizer(tiny_files(tmp_path))
