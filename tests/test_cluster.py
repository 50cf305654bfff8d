import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog import UserError
from data_catalog.layout import Levels
from data_catalog.manifest import write_json
from data_catalog.records import Account, Tally
from pipeline.cluster import _cell_seed, _sample, assign_part, grow, load_tree, train_tree
from pipeline.config import Build
from pipeline.embed import IDENTITY, read_embeddings
from pipeline.identity import Identity
from pipeline.kmeans import nearest, unit
from pipeline.parts import Part, make_part

DIMENSION = 8


def vectors(n: int, seed: int = 1) -> np.ndarray:
    """Around the eight axes, one group an axis."""
    random = np.random.Generator(np.random.Philox(key=seed))
    return unit(np.eye(DIMENSION)[np.arange(n) % DIMENSION] + 0.1 * random.normal(size=(n, DIMENSION)))


def embedded(folder, x, sha256="s") -> Part:
    def make(out):
        np.save(out / "embeddings.npy", x.astype(np.float16))
        write_json(out / IDENTITY, Identity(model="m", sha256=sha256, dimension=DIMENSION, max_tokens=8, precision="float32"))
        amount = Tally(rows=len(x), characters=10 * len(x))
        return Account(read=amount, kept=amount)

    return make_part(folder, f"{folder.name} {x.tobytes().hex()[:64]} {sha256}", make)


@pytest.fixture
def parts(tmp_path):
    """400, 0 and 200 documents."""
    return [embedded(tmp_path / "embed" / name, vectors(n, n + 1)) for name, n in (("a", 400), ("b", 0), ("c", 200))]


def build(tmp_path, seed=0, **cluster):
    settings = {"granularities": (4, 16), "min_points": 10, "iterations": 8, **cluster}
    return Build(out=tmp_path, source={"kind": "jsonl", "path": tmp_path}, seed=seed, cluster=settings)


def test_a_trained_tree_is_nested_and_says_what_it_is(tmp_path, parts):
    part = train_tree(parts, tmp_path / "tree", build(tmp_path))
    tree = load_tree(part.folder)
    assert tree.levels == Levels((4, 16))
    told = json.loads((part.folder / "tree.json").read_text())
    assert told["inertia"].pop("4") > told["inertia"].pop("16") > 0
    assert told == {
        "granularities": [4, 16],
        "requested": [4, 16],
        "warnings": [],
        "documents": 600,
        "sample": 600,
        "inertia": {},
        "encoder": {"sha256": "s", "dimension": DIMENSION, "max_tokens": 8, "precision": "float32"},
    }
    amount = Tally(rows=600, characters=6000)
    assert part.account == Account(read=amount, kept=amount)


def test_the_same_input_gives_the_same_bytes_and_another_seed_others(tmp_path, parts):
    def files(name, config):
        folder = train_tree(parts, tmp_path / name, config).folder
        return [(folder / file).read_bytes() for file in ("centroids.npz", "tree.json")]

    sampled = {"sample": 300}
    first = files("one", build(tmp_path, **sampled))
    assert files("two", build(tmp_path, **sampled)) == first
    assert files("three", build(tmp_path, seed=1, **sampled))[0] != first[0]
    assert files("four", build(tmp_path, seed=-1, **sampled))[0] != first[0]


def test_a_beam_does_not_train_the_tree_anew(tmp_path, parts):
    prints = [train_tree(parts, tmp_path / "tree", build(tmp_path, beam=beam)).fingerprint for beam in (1, 2)]
    assert prints[0] == prints[1]
    assert train_tree(parts, tmp_path / "tree", build(tmp_path, iterations=9)).fingerprint != prints[0]


def test_children_are_split_from_their_parents_points():
    x = vectors(300)
    centroids, inertia = grow(x, Levels((4, 8)), 10, 0)
    parents = nearest(x, centroids[4])[0]
    for parent in range(4):
        inside = x[parents == parent]
        children = centroids[8][2 * parent : 2 * parent + 2]
        cell, _ = nearest(inside, children)
        for child in range(2):
            mean = unit(inside[cell == child].mean(axis=0, keepdims=True))[0]
            assert children[child] @ mean > 0.99
    assert inertia[8] < 0.25 < inertia[4]  # four cells share eight groups, eight do not


def test_every_cell_has_its_own_seed():
    seeds = [_cell_seed(seed, k, parent) for seed in (0, 1, -1) for k in (4, 16) for parent in (0, 1, 2)]
    assert len(set(seeds)) == 18
    assert seeds[0] == _cell_seed(0, 4, 0)
    assert 0 <= min(seeds) <= max(seeds) < 2**31


def test_small_cells_keep_empty_children():
    """Two groups of copies and a lone point, three cells with four children each."""
    x = np.eye(3, DIMENSION, dtype=np.float32)[[0] * 20 + [1] * 20 + [2]]
    centroids, inertia = grow(x, Levels((4, 16)), 5, 0)
    assert centroids[4].any(axis=1).sum() == 3
    assert centroids[16].any(axis=1).sum() == 3
    assert inertia == {4: 0, 16: 0}


def test_levels_without_enough_documents_are_left_out_aloud(tmp_path, parts, caplog):
    part = train_tree(parts, tmp_path / "tree", build(tmp_path, granularities=(4, 60, 120, 240)))
    assert load_tree(part.folder).levels == Levels((4, 60))
    told = json.loads((part.folder / "tree.json").read_text())
    sentence = "600 documents support at most 60 cells of 10 documents (cluster.min_points): the tree ends at 60, without [120, 240]"
    assert (told["granularities"], told["requested"], told["warnings"]) == ([4, 60], [4, 60, 120, 240], [sentence])
    assert sentence in caplog.text


def test_levels_without_enough_documents_are_refused_if_asked(tmp_path, parts):
    with pytest.raises(UserError, match=r"600 documents support at most 60 cells .* leave out \[120\]"):
        train_tree(parts, tmp_path / "tree", build(tmp_path, granularities=(4, 120), unsupported="refuse"))


@pytest.mark.parametrize("unsupported", ["cap", "refuse"])
def test_a_first_level_without_enough_documents_is_refused(tmp_path, parts, unsupported):
    with pytest.raises(UserError, match=r"granularities \[64, 128\]: 600 documents support at most 60 cells"):
        train_tree(parts, tmp_path / "tree", build(tmp_path, granularities=(64, 128), unsupported=unsupported))
    with pytest.raises(UserError, match="0 documents support at most 0 cells"):
        train_tree([], tmp_path / "tree", build(tmp_path))


def test_a_sample_takes_from_every_part_in_proportion(tmp_path, parts, caplog):
    maps = read_embeddings(parts)
    sample = _sample(maps, 301, 0)
    rows = [{row.tobytes() for row in unit(x)} for x in maps]
    assert [sum(row.tobytes() in part for row in sample) for part in rows] == [200, 0, 101]
    assert len({row.tobytes() for row in sample}) == 301
    part = train_tree(parts, tmp_path / "tree", build(tmp_path, sample=100))
    assert json.loads((part.folder / "tree.json").read_text())["sample"] == 100
    assert "100 vectors (cluster.sample) train 16 cells: fewer than 10 each" in caplog.text


def test_leaves_are_written_in_the_order_of_the_documents(tmp_path, parts):
    config = build(tmp_path, beam=4)
    tree = train_tree(parts, tmp_path / "tree", config)
    centroids = load_tree(tree.folder).centroids[16]
    for part in parts:
        assigned = assign_part(part, tree, tmp_path / "assign" / part.name, config)
        table = pq.read_table(assigned.folder / "leaves.parquet")
        assert table.schema.remove_metadata() == pa.schema([("leaf", pa.uint32()), ("distance", pa.float32())])
        exact, distance = nearest(unit(np.load(part.folder / "embeddings.npy")), centroids)
        assert table["leaf"].to_pylist() == exact.tolist()
        assert table["distance"].to_numpy() == pytest.approx(distance, abs=1e-5)
        assert assigned.account == Account(read=part.account.kept, kept=part.account.kept)


def test_vectors_of_another_encoder_are_refused(tmp_path, parts):
    tree = train_tree(parts, tmp_path / "tree", build(tmp_path))
    other = embedded(tmp_path / "embed" / "other", vectors(10), sha256="t")
    with pytest.raises(UserError, match="was not embedded by the encoder of"):
        assign_part(other, tree, tmp_path / "assign" / "other", build(tmp_path))
    with pytest.raises(UserError, match="two encoders"):
        train_tree([*parts, other], tmp_path / "tree2", build(tmp_path))
