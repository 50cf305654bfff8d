"""Records that cannot be read, in a corpus and in a target: a whole build around each."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.source.lines import TEXT_BYTES
from tests.helpers.bad_records import (
    BAD_RECORDS,
    GOOD,
    TARGET,
    WORDS,
    Planted,
    build_and_check,
    plant,
    write_good,
)
from tests.helpers.tiny_encoder import write_encoder

pytestmark = BAD_RECORDS


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder") / "model", WORDS)


def line(text, **more):
    return json.dumps({"id": "bad", "text": text, **more}).encode() + b"\n"


def raw(record):
    return record.encode() + b"\n"


UNREADABLE = {  # records, and the reason of each
    "not closed": (raw('{"id": "bad", "text": "never closed'), "not_json"),
    "two values": (raw('{"id": "bad"} {"text": "x"}'), "not_json"),
    "single quotes": (raw("{'id': 'bad', 'text': 'x'}"), "not_json"),
    "no object": (raw('["bad", "text"]'), "not_json"),
    "a hole of NUL bytes": (bytes(5000) + b"\n", "not_json"),
    "a NUL byte in a string": (raw('{"id": "bad", "text": "a\0b"}'), "not_json"),
    "nested 10,000 deep": (
        raw('{"text": "x", "x": ' + "[" * 10_000 + "]" * 10_000 + "}"),
        "not_json",
    ),
    "objects 100,000 deep": (raw('{"x":' * 100_000), "not_json"),
    "an id of 5,000 digits": (raw('{"id": 1' + "0" * 5_000 + ', "text": "x"}'), "not_json"),
    "not UTF-8": (b'{"id": "bad", "text": "caf\xe9"}\n', "bad_utf8"),
    "overlong UTF-8": (b'{"id": "bad", "text": "\xc0\xaf"}\n', "bad_utf8"),
    "surrogates in UTF-8": (b'{"id": "bad", "text": "\xed\xa0\x80"}\n', "bad_utf8"),
    "a lone surrogate": (raw(r'{"id": "bad", "text": "half \ud83d of it"}'), "bad_unicode"),
    "no text": (raw('{"id": "bad", "body": "x"}'), "no_text"),
    "a null text": (line(None), "no_text"),
    "a number as text": (line(7), "no_text"),
    "a truth value as text": (line(True), "no_text"),
    "a list as text": (line(["a", "b"]), "no_text"),
    "an object as text": (line({"text": "x"}), "no_text"),
    "an empty text": (line(""), "empty_text"),
    "only white space": (line(" \t\r\n\u00a0\u3000\u2028"), "empty_text"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_record_that_cannot_be_read(tmp_path, encoder, name):
    """It is once in the corpus and once in the target."""
    bad, reason = UNREADABLE[name]
    settings = write_good(tmp_path, encoder)
    plant(tmp_path / "corpus" / "a.jsonl", bad)
    plant(tmp_path / "target" / "t.jsonl", bad)
    lost = {("source", reason): 1, ("targets", reason): 1}
    build_and_check(settings, Planted(GOOD, TARGET, lost))


TEXT = "A text that is good, and like no other."
READABLE = {  # records, their id and text, and what is noted
    "an id of 400 digits": (
        raw('{"id": 1' + "0" * 399 + f', "text": "{TEXT}"}}'),
        "1" + "0" * 399,
        TEXT,
        {},
    ),
    "two texts": (raw(f'{{"id": "bad", "text": "first", "text": "{TEXT}"}}'), "bad", TEXT, {}),
    "NUL characters": (line("\0 a \0\0 text \0"), "bad", "\0 a \0\0 text \0", {}),
    "a number without an end": (
        raw(f'{{"id": "bad", "text": "{TEXT}", "n": 1e999}}'),
        "bad",
        TEXT,
        {},
    ),
    "no number as id": (raw(f'{{"id": NaN, "text": "{TEXT}"}}'), "a.jsonl/20", TEXT, {"bad_id": 1}),
    "a list as id": (raw(f'{{"id": [1], "text": "{TEXT}"}}'), "a.jsonl/20", TEXT, {"bad_id": 1}),
    "an id with half a character": (raw(rf'{{"id": "\ud800", "text": "{TEXT}"}}'), "?", TEXT, {}),
    "a number as URL": (
        raw(f'{{"id": "bad", "url": 7, "text": "{TEXT}"}}'),
        "bad",
        TEXT,
        {"bad_url": 1},
    ),
    "an id like a path": (
        line(TEXT, id="../../\0\n*'\"; DROP TABLE documents"),
        "../../\0\n*'\"; DROP TABLE documents",
        TEXT,
        {},
    ),
    "an id of 100,000 characters": (line(TEXT, id="i" * 100_000), "i" * 100_000, TEXT, {}),
    "only characters without width": (line("\u200b\u200d\ufeff"), "bad", "\u200b\u200d\ufeff", {}),
    "a word of a million letters": (line("acgt" * 250_000), "bad", "acgt" * 250_000, {}),
    "a million spaces": (line("x" + " " * 1_000_000 + "y"), "bad", "x" + " " * 1_000_000 + "y", {}),
    "words of the tokenizer": (
        line("<|endoftext|>[CLS][SEP][PAD]"),
        "bad",
        "<|endoftext|>[CLS][SEP][PAD]",
        {},
    ),
}


@pytest.mark.parametrize("name", READABLE)
def test_an_odd_record_is_kept(tmp_path, encoder, name):
    bad, doc_id, text, noted = READABLE[name]
    settings = write_good(tmp_path, encoder)
    plant(tmp_path / "corpus" / "a.jsonl", bad)
    build_and_check(settings, Planted([*GOOD, (doc_id, text)], TARGET, noted=noted))


def test_a_line_that_is_too_long(tmp_path, encoder):
    settings = write_good(tmp_path, encoder)
    long = b'{"text": "' + bytes(TEXT_BYTES) + b'"}\n'
    for folder in ("corpus", "target"):
        (tmp_path / folder / "z.jsonl.gz").write_bytes(gzip.compress(long, 1))
    lost = {("source", "line_too_long"): 1, ("targets", "line_too_long"): 1}
    build_and_check(settings, Planted(GOOD, TARGET, lost))


@pytest.mark.parametrize("place", ["corpus", "target"])
def test_texts_of_a_table(tmp_path, encoder, place):
    """One is too long, one is not UTF-8, one is null and one is white space."""
    settings = write_good(tmp_path, encoder)
    good = GOOD if place == "corpus" else TARGET
    texts = [*(text.encode() for _, text in good), bytes(TEXT_BYTES + 1), b"caf\xe9", None, b" "]
    ids = [*(name for name, _ in good), *"abcd"]
    order = [*range(9, len(ids)), *range(9)]
    table = pa.table({"id": ids, "text": pa.array(texts, pa.binary())}).take(order)
    (tmp_path / place / ("a.jsonl" if place == "corpus" else "t.jsonl")).unlink()
    pq.write_table(table, tmp_path / place / "t.parquet", row_group_size=7)
    if place == "corpus":
        settings["source"]["kind"] = "parquet"
    stage = "source" if place == "corpus" else "targets"
    reasons = ("too_long", "bad_utf8", "no_text", "empty_text")
    build_and_check(settings, Planted(GOOD, TARGET, {(stage, reason): 1 for reason in reasons}))


@pytest.mark.parametrize("place", ["corpus", "target"])
def test_text_files(tmp_path, encoder, place):
    """Files of one that is not UTF-8, one that is empty, and others that are no text."""
    settings = write_good(tmp_path, encoder)
    good = [
        (f"{name}.txt", text.rstrip()) for name, text in (GOOD if place == "corpus" else TARGET)
    ]
    (tmp_path / place / ("a.jsonl" if place == "corpus" else "t.jsonl")).unlink()
    for name, text in good:
        (tmp_path / place / name).write_text(text)
    bad = {
        "a": b"caf\xe9 " * 9,
        "b": b"",
        "c": b"\x7fELF\0\0",
        "d": b" \n",
        "e": "x".encode("utf-16"),
    }
    for name, data in bad.items():
        (tmp_path / place / f"{name}.txt").write_bytes(data)
    stage = "source" if place == "corpus" else "targets"
    reasons = {"bad_utf8": 2, "empty_file": 1, "empty_text": 1, "not_text": 1}
    lost = {(stage, reason): number for reason, number in reasons.items()}
    warned = tuple(f"{name}.txt: " for name in bad)
    if place == "corpus":
        settings["source"]["kind"] = "text"
        build_and_check(settings, Planted(good, TARGET, lost, warned=warned))
    else:
        build_and_check(settings, Planted(GOOD, good, lost, warned=warned))


@pytest.mark.parametrize("place", ["corpus", "target"])
def test_notes_on_fields(tmp_path, encoder, place):
    """A target's notes are in the quarantine, and are no damage."""
    settings = write_good(tmp_path, encoder)
    text = "Fields of other kinds."
    plant(
        tmp_path / place / ("a.jsonl" if place == "corpus" else "t.jsonl"),
        line(text, url=7) + b"\n",
    )
    more = [("bad", text)]
    noted = {"bad_url": 1, "blank_lines": 1}
    if place == "corpus":
        build_and_check(settings, Planted([*GOOD, *more], TARGET, noted=noted))
    else:
        lost = {("targets", reason): 1 for reason in noted}
        build_and_check(settings, Planted(GOOD, [*TARGET, *more], lost))
