import pytest
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models
from transformers import PreTrainedTokenizerFast

from data_catalog.errors import UserError
from pipeline.config import Tokenizer
from pipeline.shard.tokenize import (
    MAXIMUM_SAMPLE_WORD,
    check_encoded,
    cut_words,
    encode_texts,
    end_of_text,
    load_tokenizer,
    make_tokenizer,
    vocabulary_size,
)
from tests.helpers.parts import source_part, verdicts_part

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "naïve ☃ \x00 end"]


def config(**settings):
    return Tokenizer(**{"vocabulary": 300, **settings})


@pytest.fixture
def tokenizer(tmp_path):
    source = source_part(tmp_path / "source" / "a", TEXTS)
    return make_tokenizer(
        [source],
        [verdicts_part(tmp_path / "dedup", [source])],
        tmp_path / "tokenizer",
        config(),
        0,
    )


def test_any_text_survives_a_round_trip_and_ends_with_end_of_text(tokenizer):
    ids = encode_texts(TEXTS, tokenizer)
    fast, eos = load_tokenizer(tokenizer.folder / "tokenizer.json")
    assert [fast.decode(row[:-1]) for row in ids.to_pylist()] == TEXTS
    assert {row[-1] for row in ids.to_pylist()} == {eos} == {end_of_text(tokenizer.folder)}
    assert str(ids.type.value_type) == "uint16"
    assert vocabulary_size(tokenizer) <= 300


def test_text_cannot_contain_end_of_text(tokenizer):
    _, eos = load_tokenizer(tokenizer.folder / "tokenizer.json")
    [ids] = encode_texts(["a<|endoftext|>b"], tokenizer).to_pylist()
    assert ids.count(eos) == 1
    assert ids[-1] == eos


def test_only_kept_text_trains_the_tokenizer(tmp_path):
    source = source_part(tmp_path / "a", ["zqzqzqzq " * 50, "the cat sat"])
    verdicts = verdicts_part(tmp_path / "dedup", [source], {"a": [0]})
    part = make_tokenizer([source], [verdicts], tmp_path / "tokenizer", config(), 0)
    assert "zq" not in load_tokenizer(part.folder / "tokenizer.json")[0].get_vocab()


def test_the_same_text_gives_the_same_bytes(tmp_path, tokenizer):
    source = source_part(tmp_path / "source" / "a", TEXTS)
    again = make_tokenizer(
        [source], [verdicts_part(tmp_path / "dedup", [source])], tmp_path / "again", config(), 0
    )
    assert (again.folder / "tokenizer.json").read_bytes() == (
        tokenizer.folder / "tokenizer.json"
    ).read_bytes()


def test_a_given_tokenizer_is_used_as_it_is(tmp_path, tokenizer):
    given = make_tokenizer([], [], tmp_path / "given", config(path=str(tokenizer.folder)), 0)
    assert encode_texts(TEXTS, given) == encode_texts(TEXTS, tokenizer)


def test_a_text_without_tokens_has_null(tmp_path):
    letters = FastTokenizer(models.BPE({"<end>": 0, "a": 1}, []))
    PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="<end>").save_pretrained(tmp_path)
    given = make_tokenizer([], [], tmp_path / "given", config(path=str(tmp_path)), 0)
    ids = encode_texts(["aa", "\u6f22", "\u6f22a"], given)
    assert ids.to_pylist() == [[1, 1, 0], None, [1, 0]]


def test_only_long_words_are_cut():
    n = MAXIMUM_SAMPLE_WORD
    text = f"{'b' * n} {'a' * (2 * n + 1)} {' ' * n}c"
    pieces = list(cut_words(text))
    assert "".join(pieces) == text
    assert [len(piece) for piece in pieces] == [n + 1 + n, n, 1 + n, 2]
    assert list(cut_words("x " * n)) == ["x " * n]


def test_a_tokenizer_that_fails_for_most_documents_is_named(caplog):
    check_encoded(8, 16, "a.jsonl")
    assert "a.jsonl: 8 of 16" in caplog.text
    with pytest.raises(UserError, match=r"tokenizer\.path: .* 9 of the 16 documents in a\.jsonl"):
        check_encoded(9, 16, "a.jsonl")


def test_a_missing_tokenizer_is_refused(tmp_path, tokenizer):
    with pytest.raises(UserError, match=r"tokenizer\.path .*none"):
        make_tokenizer([], [], tmp_path / "given", config(path=str(tmp_path / "none")), 0)
