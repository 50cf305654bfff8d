"""Records that a stage after the source cannot process: a whole build around each."""

import math
import string

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_catalog.errors import UserError
from data_catalog.settings import parse
from pipeline.add import add
from pipeline.config import Addition, Build
from pipeline.run import build
from tests.helpers.bad_records import (
    BAD_RECORDS,
    GOOD,
    TARGET,
    WORDS,
    Planted,
    build_and_check,
    check_catalog,
    plant,
    records,
    write_good,
)
from tests.helpers.tiny_encoder import write_encoder

pytestmark = BAD_RECORDS


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder") / "model", WORDS)


ODD_TEXTS = {
    "punctuation": "... !!! ??? --- ;;;",
    "one letter": "x",
    "digits": "0123456789 " * 30,
    "controls": "".join(map(chr, range(1, 32))) + "\x7f\x85 end",
    "no characters": "\ufffe\uffff\U0001fffe\ufdd0 text",
    "private": "\ue000\uf8ff\U000f0000",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 30,
    "marks": "a" + "\u0301" * 2_000,
    "right to left": "\u202eabc\u202d \u05e9\u05dc\u05d5\u05dd",
    "NUL": "\0" * 300,
    "line ends": "\r\n\x0b\x0c\x1c\u2028\u2029".join("abc"),
    "one word": "word " * 3_000,
    "lines": "- \n" * 20_000,
    "braces": "{" * 5_000 + "lorem ipsum javascript",
    "markup": "<script>alert(1)</script>\x1b[31m" * 20,
    "no spaces": "\u6f22\u5b57" * 5_000,
}

PAGE = (
    "The {0} house by the river was built in the spring by people who came from the hills. "
    "They had brought timber, and with it they made a roof that has lasted for many years. "
    "In the summer the garden gives fruit to all those who live there, and to their friends. "
    "When the winter comes, snow covers the field, but the fire in the kitchen is never out. "
    "Nobody knows how old the oak at the gate of house {0} is, which was there before the road."
)


@pytest.mark.parametrize("preset", ["gopher", "together", "c4", "lucie", "none"])
def test_rules_judge_odd_texts(tmp_path, encoder, preset):
    """The good documents are short, and a rule may drop any document but the long ones."""
    settings = write_good(tmp_path, encoder)
    settings["quality"] = {"preset": preset}
    long = [(f"long-{i}", PAGE.format(f"{i}a")) for i in range(40)]
    odd = [*ODD_TEXTS.items()]
    plant(tmp_path / "corpus" / "a.jsonl", records([*odd, *long]))
    droppable = [] if preset == "none" else [name for name, _ in (*GOOD, *odd)]
    build_and_check(settings, Planted([*GOOD, *odd, *long], TARGET, droppable=droppable))


@pytest.mark.parametrize("tiers", [["digest", "minhash"], ["digest", "minhash", "semantic"]])
def test_copies_of_odd_texts(tmp_path, encoder, tiers):
    settings = write_good(tmp_path, encoder)
    settings["dedup"] = {"tiers": tiers, "cosine": 1.0}
    odd = [(name + copy, text) for copy in ("", "-2") for name, text in ODD_TEXTS.items()]
    plant(tmp_path / "corpus" / "a.jsonl", records(odd))
    droppable = [name for name, _ in odd if name.endswith("-2")]
    if "semantic" in tiers:
        droppable = [name for name, _ in (*GOOD, *odd)]
    build_and_check(settings, Planted([*GOOD, *odd], TARGET, droppable=droppable))


def poisoned(folder, value=math.nan):
    return write_encoder(folder, WORDS, bad_word="poison", value=value)


LOST = {("embed", "no_embedding"): 1, ("targets", "no_embedding"): 1}
NO_TOKENS = {("sort", "no_tokens"): 1, ("targets", "no_tokens"): 1}


def warned(stage, reason, of=41):
    return (f"{reason}: the stage {stage} could not process 1 of {of} documents.",)


def plant_both(folder, text):
    """Plant a text in the corpus and one in the target that is no copy of it."""
    plant(folder / "corpus" / "a.jsonl", records([("bad", text)]))
    plant(folder / "target" / "t.jsonl", records([("bad", f"{text} {text}")]))


@pytest.mark.parametrize(
    ("text", "value"),
    [("head", math.nan), ("head", math.inf), ("head", 3e38), ("windows", math.nan)],
)
def test_a_text_without_an_embedding(tmp_path, text, value):
    settings = write_good(tmp_path, poisoned(tmp_path / "encoder", value))
    settings["embed"] |= {"text": text, "max_tokens": 8}
    plant_both(tmp_path, "bread poison butter")
    warning = warned("embed", "no_embedding")
    build_and_check(settings, Planted(GOOD, TARGET, LOST, warned=warning))


def test_a_text_without_an_embedding_and_near_copies(tmp_path):
    settings = write_good(tmp_path, poisoned(tmp_path / "encoder"))
    settings["dedup"] = {"tiers": ["digest", "minhash", "semantic"], "cosine": 1.0}
    plant_both(tmp_path, "bread poison butter")
    warning = warned("embed", "no_embedding")
    droppable = [name for name, _ in GOOD]
    planted = Planted(GOOD, TARGET, LOST, warned=warning, droppable=droppable)
    build_and_check(settings, planted)


def test_a_text_that_the_tokenizer_of_the_encoder_refuses(tmp_path):
    encoder = write_encoder(tmp_path / "encoder", WORDS, unknown="none")
    settings = write_good(tmp_path, encoder)
    plant_both(tmp_path, "bread poison butter")
    build_and_check(settings, Planted(GOOD, TARGET, LOST, warned=warned("embed", "no_embedding")))


def refusing_tokenizer(folder):
    """Write a tokenizer that knows the words of the good documents and refuses others."""
    model = models.WordLevel({w: i for i, w in enumerate(["<end>", *WORDS])}, unk_token="none")
    return write_tokenizer(folder, Tokenizer(model))


def forgetful_tokenizer(folder):
    """Write a tokenizer that knows ASCII and leaves out other characters."""
    model = models.BPE({w: i for i, w in enumerate(["<end>", *string.printable])}, [])
    return write_tokenizer(folder, Tokenizer(model))


def write_tokenizer(folder, tokenizer):
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    return {"path": str(folder)}


TOKENIZERS = {
    "it refuses the text": (refusing_tokenizer, "bread strange butter"),
    "it gives none": (forgetful_tokenizer, "\u6f22\u5b57"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("tiers", [["digest"], ["digest", "semantic"]])
def test_a_text_without_tokens(tmp_path, encoder, name, tiers):
    make, text = TOKENIZERS[name]
    settings = write_good(tmp_path, encoder)
    settings["tokenizer"] = make(tmp_path / "tokenizer")
    settings["dedup"] = {"tiers": tiers, "cosine": 1.0}
    plant_both(tmp_path, text)
    droppable = [n for n, _ in GOOD] if "semantic" in tiers else []
    build_and_check(
        settings,
        Planted(GOOD, TARGET, NO_TOKENS, warned=warned("sort", "no_tokens"), droppable=droppable),
    )


def test_each_stage_loses_a_text(tmp_path):
    encoder = poisoned(tmp_path / "encoder")
    settings = write_good(tmp_path, encoder)
    settings["tokenizer"] = refusing_tokenizer(tmp_path / "tokenizer")
    plant(tmp_path / "corpus" / "a.jsonl", b"{\n" + records([("a", "poison"), ("b", "strange")]))
    lost = {("source", "not_json"): 1, ("embed", "no_embedding"): 1, ("sort", "no_tokens"): 1}
    both = (*warned("embed", "no_embedding", 42), *warned("sort", "no_tokens"))
    build_and_check(settings, Planted(GOOD, TARGET, lost, warned=both))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_addition_with_bad_records(tmp_path, name):
    make, text = TOKENIZERS[name]
    settings = write_good(tmp_path, poisoned(tmp_path / "encoder"))
    settings["tokenizer"] = make(tmp_path / "tokenizer")
    root = build_and_check(settings, Planted(GOOD, TARGET))
    more = [(f"more-{i}", f"{GOOD[i][1]} {GOOD[i + 8][1]}") for i in range(8)]
    (tmp_path / "more").mkdir()
    bad = [("a", "poison"), ("b", text), ("c", "")]
    (tmp_path / "more" / "m.jsonl").write_bytes(records([*more[:4], *bad, *more[4:]]))
    source = {"kind": "jsonl", "path": str(tmp_path / "more")}
    add(root, parse(Addition, {"source": source}, "test"))
    lost = {("source", "empty_text"): 1, ("embed", "no_embedding"): 1, ("sort", "no_tokens"): 1}
    check_catalog(root, Planted([*GOOD, *more], TARGET, lost, warned=("no_e", "no_t")))


@pytest.mark.parametrize(
    "rows", [b"doc-1,\n", b"none,b\n", b"doc-1,\0\n", b"\n\n"], ids=["null", "none", "NUL", "blank"]
)
def test_odd_labels(tmp_path, encoder, rows):
    settings = write_good(tmp_path, encoder)
    labels = b"doc_id,kind\ndoc-0,a\n" + rows + b"doc-2,b\n"
    (tmp_path / "labels.csv").write_bytes(labels)
    settings["labels"] = {"path": str(tmp_path / "labels.csv"), "column": "kind"}
    build_and_check(settings, Planted(GOOD, TARGET))


def test_a_tokenizer_that_refuses_most_texts_is_named(tmp_path, encoder):
    settings = write_good(tmp_path, encoder)
    settings["tokenizer"] = refusing_tokenizer(tmp_path / "tokenizer")
    strange = [(f"strange-{i}", f"strange {i}") for i in range(50)]
    plant(tmp_path / "corpus" / "a.jsonl", records(strange))
    with pytest.raises(UserError, match=r"tokenizer\.path.* 50 of the 90 documents in a\.jsonl"):
        build(parse(Build, settings, "test"))


def test_an_encoder_that_fails_for_most_texts_is_named(tmp_path):
    settings = write_good(tmp_path, poisoned(tmp_path / "encoder"))
    plant(tmp_path / "corpus" / "a.jsonl", records([(f"p-{i}", f"poison {i}") for i in range(50)]))
    with pytest.raises(UserError, match=r"embed\.model.* 50 of the 90 documents in a\.jsonl"):
        build(parse(Build, settings, "test"))
