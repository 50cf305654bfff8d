import pytest

from data_catalog.errors import UserError
from pipeline.config import Tokenizer
from pipeline.shard.tokenize import (
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


def test_a_missing_tokenizer_is_refused(tmp_path, tokenizer):
    with pytest.raises(UserError, match=r"tokenizer\.path .*none"):
        make_tokenizer([], [], tmp_path / "given", config(path=str(tmp_path / "none")), 0)
