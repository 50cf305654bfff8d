import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog import UserError
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.encoder_identity import Identity
from data_catalog.format.layout import Levels
from data_catalog.format.manifest import write_json
from pipeline.cluster.backends.backend import load_backend
from pipeline.cluster.kmeans import nearest_centroid, unit_rows
from pipeline.cluster.stage import assign_part, sample_size, train_tree
from pipeline.cluster.tree import load_tree
from pipeline.config import Cluster
from pipeline.embed.stage import IDENTITY_FILE, read_identity
from pipeline.parts import Part, make_part

pytestmark = pytest.mark.usefixtures("each_backend")

DIMENSION = 8


def vectors(n: int, seed: int = 1) -> np.ndarray:
    """Around the eight axes, one group an axis."""
    random = np.random.Generator(np.random.Philox(key=seed))
    return unit_rows(
        np.eye(DIMENSION)[np.arange(n) % DIMENSION] + 0.1 * random.normal(size=(n, DIMENSION))
    )


def embedded(folder, x, sha256="s") -> Part:
    def make(out):
        np.save(out / "embeddings.npy", x.astype(np.float16))
        write_json(
            out / IDENTITY_FILE,
            Identity(
                model="m", sha256=sha256, dimension=DIMENSION, max_tokens=8, precision="float32"
            ),
        )
        amount = Tally(rows=len(x), characters=10 * len(x))
        return Account(read=amount, kept=amount)

    return make_part(folder, f"{folder.name} {x.tobytes().hex()[:64]} {sha256}", make)


@pytest.fixture
def parts(tmp_path):
    """400, 0 and 200 documents."""
    return [
        embedded(tmp_path / "embed" / name, vectors(n, n + 1))
        for name, n in (("a", 400), ("b", 0), ("c", 200))
    ]


def cluster(**settings):
    return Cluster(**{"granularities": (4, 16), "min_points": 10, "iterations": 8, **settings})


def test_a_trained_tree_is_nested_and_described(tmp_path, parts, each_backend):
    part = train_tree(parts, tmp_path / "tree", cluster(), 0)
    tree = load_tree(part.folder)
    assert tree.levels == Levels((4, 16))
    description = json.loads((part.folder / "tree.json").read_text())
    levels = description.pop("levels")
    assert levels["4"]["inertia"] > levels["16"]["inertia"] > 0
    assert levels["16"]["empty"] == 0
    assert levels["16"]["sizes"]["smallest"] > 0
    assert set(levels["16"]["search"]) == {"1", "2", "4", "8", "16"}
    assert 0 <= levels["16"]["beyond"] < 0.5
    assert (
        0.5 < description.pop("inertia") / levels["16"]["inertia"] < 2
    )  # the sample's against that of 12 documents
    assert description == {
        "granularities": [4, 16],
        "requested": [4, 16],
        "warnings": [],
        "documents": 600,
        "sample": 588,
        "held_out": 12,
        "backend": each_backend,
        "device": load_backend("auto").device,
        "encoder": read_identity(parts[0]).comparable,
    }
    assert tree.radius.shape == (16,)
    assert tree.margins is None  # too few were held out to learn from
    amount = Tally(rows=600, characters=6000)
    assert part.account == Account(read=amount, kept=amount)


def test_bytes_depend_on_input_and_seed(tmp_path, parts):
    def files(name, seed=0):
        folder = train_tree(parts, tmp_path / name, cluster(sample=300), seed).folder
        return [(folder / file).read_bytes() for file in ("centroids.npz", "tree.json")]

    first = files("one")
    assert files("two") == first
    assert files("three", seed=1)[0] != first[0]
    assert files("four", seed=-1)[0] != first[0]


def test_beam_and_threads_do_not_train_the_tree_again(tmp_path, parts):
    prints = [
        train_tree(parts, tmp_path / "tree", cluster(**how), 0).fingerprint
        for how in ({"beam": 1}, {"beam": 2}, {"workers": 3})
    ]
    assert prints[0] == prints[1] == prints[2]
    assert train_tree(parts, tmp_path / "tree", cluster(iterations=9), 0).fingerprint != prints[0]


def test_the_library_is_part_of_the_fingerprint_and_of_the_name_of_unfinished_work(
    monkeypatch, tmp_path, parts
):
    """A library does not continue the unfinished work of another."""
    used = []

    def noted(path):
        used.append(path.name.split(".")[-2])
        raise InterruptedError

    monkeypatch.setattr("pipeline.cluster.stage.in_use", noted)
    for library in ("torch", "faiss"):
        with pytest.raises(InterruptedError):
            train_tree(parts, tmp_path / "tree", cluster(backend=library), 0)
    assert used == ["torch", "faiss"]
    monkeypatch.undo()
    prints = [
        train_tree(parts, tmp_path / library, cluster(backend=library), 0).fingerprint
        for library in ("torch", "faiss")
    ]
    assert prints[0] != prints[1]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_training_resumes_and_leaves_no_temporary_files(
    monkeypatch, tmp_path, parts, workers
):
    whole = train_tree(parts, tmp_path / "whole", cluster(), 0)

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.cluster.measure.with_radius", killed)
        with pytest.raises(Killed):
            train_tree(parts, tmp_path / "tree", cluster(), 0)
    [left] = tmp_path.glob(".tree.*")
    assert {"top.npz", "sample.npy", "sub-tree-00003.npz", "polish-1.npz"} <= {
        path.name for path in left.iterdir()
    }
    other = left.with_name(".tree.0123456789abcdef.unfinished")
    other.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(
            "pipeline.cluster.kmeans.spherical_kmeans", killed
        )  # nothing is trained again
        patch.setattr("pipeline.cluster.grow.spherical_kmeans", killed)
        again = train_tree(parts, tmp_path / "tree", cluster(workers=workers), 0)
    for file in ("centroids.npz", "tree.json"):
        assert (again.folder / file).read_bytes() == (whole.folder / file).read_bytes()
    assert not list(tmp_path.glob(".tree.*"))
    assert not list(tmp_path.glob(".whole.*"))


def test_enough_held_out_documents_give_margins_that_find_nearly_all(monkeypatch, tmp_path):
    monkeypatch.setattr("pipeline.cluster.search.MINIMUM_MARGIN_VECTORS", 20)
    part = train_tree(
        [embedded(tmp_path / "embed" / "a", vectors(4000))], tmp_path / "tree", cluster(), 0
    )
    tree = load_tree(part.folder)
    assert len(tree.margins) == 1
    description = json.loads((part.folder / "tree.json").read_text())
    assert (description["sample"], description["held_out"]) == (3920, 80)
    assert description["levels"]["16"]["search"]["8"]["found"] > 0.9


def test_levels_without_enough_documents_are_left_out_with_a_warning(tmp_path, parts, caplog):
    part = train_tree(parts, tmp_path / "tree", cluster(granularities=(4, 60, 120, 240)), 0)
    assert load_tree(part.folder).levels == Levels((4, 60))
    description = json.loads((part.folder / "tree.json").read_text())
    sentence = (
        "600 documents support at most 60 cells of 10 documents (cluster.min_points). "
        "The tree ends at level 60, without [120, 240]."
    )
    assert (description["granularities"], description["requested"], description["warnings"]) == (
        [4, 60],
        [4, 60, 120, 240],
        [sentence],
    )
    assert sentence in caplog.text


def test_levels_without_enough_documents_are_refused_if_asked(tmp_path, parts):
    with pytest.raises(UserError, match=r"cluster\.granularities .*600 .*60 cells.*\[120\]"):
        train_tree(
            parts, tmp_path / "tree", cluster(granularities=(4, 120), unsupported="refuse"), 0
        )


def test_a_first_level_without_enough_documents_has_fewer_cells(tmp_path, parts):
    part = train_tree(parts, tmp_path / "tree", cluster(granularities=(64, 128)), 0)
    assert load_tree(part.folder).levels == Levels((60,))
    [sentence] = json.loads((part.folder / "tree.json").read_text())["warnings"]
    assert "60 cells of 10 documents (cluster.min_points)" in sentence
    assert sentence.endswith("one level of 60, instead of [64, 128].")
    with pytest.raises(
        UserError,
        match=r"cluster\.granularities \[64, 128\]: 600 .*60 cells.*\[64, 128\]",
    ):
        train_tree(
            parts, tmp_path / "refused", cluster(granularities=(64, 128), unsupported="refuse"), 0
        )


def test_a_tree_needs_at_least_one_document(tmp_path):
    lone = embedded(tmp_path / "embed" / "lone", vectors(1))
    assert load_tree(train_tree([lone], tmp_path / "tree", cluster(), 0).folder).levels == Levels(
        (2,)
    )
    with pytest.raises(UserError, match="cluster: no documents"):
        train_tree([], tmp_path / "none", cluster(), 0)


def test_a_small_sample_gives_a_warning(tmp_path, parts, caplog):
    part = train_tree(parts, tmp_path / "tree", cluster(sample=100), 0)
    description = json.loads((part.folder / "tree.json").read_text())
    assert description["sample"] == 100
    [warning] = description["warnings"]
    assert warning.startswith("cluster.sample: 100 vectors train 16 cells")
    assert "fewer than 10 each" in warning
    assert warning in caplog.text


def test_the_sample_grows_with_the_leaves():
    assert sample_size(Levels((64, 4096)), Cluster()) == 2_000_000
    assert sample_size(Levels((64, 4096, 262_144)), Cluster()) == 64 * 262_144
    assert sample_size(Levels((64, 4096)), Cluster(sample=5)) == 5


def test_leaves_are_written_in_the_order_of_the_documents(tmp_path, parts):
    config = cluster(beam=4)
    tree = train_tree(parts, tmp_path / "tree", config, 0)
    centroids = load_tree(tree.folder).centroids[16]
    for part in parts:
        assigned = assign_part(part, tree, tmp_path / "assign" / part.name, config)
        table = pq.read_table(assigned.folder / "leaves.parquet")
        assert table.schema.remove_metadata() == pa.schema(
            [("leaf", pa.uint32()), ("distance", pa.float32())]
        )
        exact, distance = nearest_centroid(
            unit_rows(np.load(part.folder / "embeddings.npy")), centroids
        )
        assert table["leaf"].to_pylist() == exact.tolist()
        assert table["distance"].to_numpy() == pytest.approx(distance, abs=1e-5)
        assert assigned.account == Account(read=part.account.kept, kept=part.account.kept)


def test_vectors_of_another_encoder_are_refused(tmp_path, parts):
    tree = train_tree(parts, tmp_path / "tree", cluster(), 0)
    other = embedded(tmp_path / "embed" / "other", vectors(10), sha256="t")
    with pytest.raises(UserError, match=r"other: .*encoder of"):
        assign_part(other, tree, tmp_path / "assign" / "other", cluster())
    with pytest.raises(UserError, match="was embedded by"):
        train_tree([*parts, other], tmp_path / "tree2", cluster(), 0)
