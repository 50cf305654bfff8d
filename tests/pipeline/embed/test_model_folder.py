"""Weights of an encoder in another precision or in several files give the same embeddings."""

import hashlib

import numpy as np
import pytest
import torch
from transformers import BertModel

from pipeline.config import Embed
from pipeline.embed.encoder import load_encoder
from pipeline.embed.identity import identify
from tests.helpers.tiny_encoder import write_encoder

TEXTS = ["bread and butter", "a boat in the wind", "bread"]


@pytest.fixture
def folder(tmp_path):
    return write_encoder(tmp_path / "encoder", ["bread", "butter", "boat", "wind", "and"])


def config(folder):
    return Embed(model=str(folder), max_tokens=16, precision="float32")


def test_weights_of_half_precision_run_in_float32(folder, tmp_path):
    half = write_encoder(tmp_path / "half", ["bread", "butter", "boat", "wind", "and"])
    BertModel.from_pretrained(half).half().save_pretrained(half)
    assert '"float16"' in (half / "config.json").read_text()
    encoder = load_encoder(config(half))
    assert {p.dtype for p in encoder.models[0].model.parameters()} == {torch.float32}
    assert encoder.identity.precision == "float32"
    expected = load_encoder(config(folder)).encode(TEXTS)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-2)


def test_weights_in_several_files(folder, tmp_path):
    shards = write_encoder(tmp_path / "shards", ["bread", "butter", "boat", "wind", "and"])
    BertModel.from_pretrained(shards).save_pretrained(shards, max_shard_size="4KB")
    files = sorted(shards.glob("model-*.safetensors"))
    (shards / "model.safetensors").unlink(missing_ok=True)
    assert len(files) > 1
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    assert identify(config(shards)).sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    expected = load_encoder(config(folder)).encode(TEXTS)
    np.testing.assert_array_equal(load_encoder(config(shards)).encode(TEXTS), expected)
