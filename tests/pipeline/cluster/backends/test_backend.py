import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from data_catalog import UserError
from data_catalog.format.layout import Levels
from data_catalog.settings import parse
from pipeline.cluster.backends import backend
from pipeline.cluster.backends.backend import check_backend, load_backend, nearest_cells
from pipeline.cluster.backends.with_faiss import faiss_threads, has_gpu
from pipeline.cluster.kmeans import nearest_centroid, unit_rows
from pipeline.cluster.search import assign_leaves, with_margins
from pipeline.cluster.tree import Tree
from pipeline.config import Build, Cluster
from pipeline.run import check_request
from tests.helpers.tiny_corpus import write_corpus

LIBRARIES = ("torch", "faiss")


def random(n: int, dim: int, key: int = 1) -> np.ndarray:
    return unit_rows(np.random.Generator(np.random.Philox(key=key)).normal(size=(n, dim)))


@pytest.fixture
def x() -> np.ndarray:
    return random(3000, 16).astype(np.float16)


def by_hand(x, centroids, iterations):
    """Lloyd's iterations in double precision."""
    x, centroids = x.astype(np.float64), centroids.astype(np.float64)
    for _ in range(iterations):
        cells = (x @ centroids.T).argmax(axis=1)
        sums = np.stack([x[cells == c].sum(axis=0) for c in range(len(centroids))])
        centroids = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return centroids


@pytest.mark.parametrize("library", LIBRARIES)
def test_training_follows_lloyds_algorithm(monkeypatch, library, x):
    monkeypatch.setattr("pipeline.cluster.lloyd.fast_dtype", lambda: torch.float32)
    start = random(8, 16, 2)
    for iterations in (1, 2, 5):
        found = load_backend(library).train(x, start, Cluster(iterations=iterations))
        assert found == pytest.approx(by_hand(x, start, iterations), abs=3e-6)


@pytest.mark.parametrize("bounds", [{}, {"least_share": 0.5, "most_share": 1.5}])
@pytest.mark.parametrize("library", LIBRARIES)
def test_threads_and_interruptions_do_not_change_the_training(library, x, bounds):
    config, start, train = Cluster(iterations=8, **bounds), random(24, 16, 2), None
    train, saved = load_backend(library).train, {}
    whole = train(x, start, config, save=saved.__setitem__)
    assert list(saved) == list(range(1, 9))
    assert train(x, start, config, 3).tobytes() == whole.tobytes()
    for done in (1, 5, 8):
        assert train(x, saved[done], config, 2, done).tobytes() == whole.tobytes()


@pytest.mark.parametrize("library", LIBRARIES)
def test_training_ends_when_nothing_changes(library):
    x, done = np.repeat(np.eye(4), 5, axis=0).astype(np.float16), []
    load_backend(library).train(
        x, random(4, 4, 3), Cluster(iterations=50), save=lambda i, _: done.append(i)
    )
    assert 1 <= len(done) < 10


@pytest.mark.parametrize("library", LIBRARIES)
def test_empty_cells_are_filled_again(library, x):
    """All but one centroid begin as copies of each other."""
    start = np.repeat(random(1, 16, 5), 8, axis=0)
    start[0] = random(1, 16, 6)[0]
    found = load_backend(library).train(x, start, Cluster(iterations=15))
    assert np.bincount((x @ found.T).argmax(axis=1), minlength=8).min() > 100


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("n", [0, 1, 8192, 8193])
def test_the_nearest_cell_equals_exact_search_and_is_never_empty(n, workers, library):
    x, centroids = random(n, 16), random(9, 16, 2)
    centroids[[0, 5]] = 0
    cell, cosine = nearest_cells(3 * x, centroids, workers, library)
    expected, distance = nearest_centroid(x, centroids)
    assert cell.tolist() == expected.tolist()
    assert 2 - 2 * cosine == pytest.approx(distance, abs=1e-5)


@pytest.mark.parametrize("library", LIBRARIES)
def test_without_filled_cells_there_is_no_cosine(library):
    cell, cosine = nearest_cells(random(2, 4), np.zeros((3, 4), np.float32), 1, library)
    assert (cell.tolist(), cosine.tolist()) == ([0, 0], [-np.inf] * 2)


@pytest.mark.parametrize("library", LIBRARIES)
def test_many_centroids_use_small_blocks_of_rows(monkeypatch, library):
    assert [backend.product_rows(k) for k in (1, 4096, 8192, 2**20, 2**22)] == [
        *(8192, 8192, 4096),
        *(32, 32),
    ]
    monkeypatch.setattr("pipeline.cluster.backends.backend.product_rows", lambda _: 7)
    x, centroids = random(100, 16), random(9, 16, 2)
    assert (
        nearest_cells(x, centroids, 1, library)[0].tolist()
        == nearest_centroid(x, centroids)[0].tolist()
    )


@pytest.mark.parametrize("cells", [2, 600])  # torch has two ways to search one level
@pytest.mark.parametrize("library", LIBRARIES)
def test_ties_go_to_the_first_cell(library, cells):
    centroids = np.zeros((cells, 3), np.float32)
    centroids[:2] = [0, 1, 0]
    assert nearest_cells(np.eye(3, dtype=np.float32)[1:2], centroids, 1, library)[0].tolist() == [0]
    levels = Tree(
        Levels((2, 4)),
        {2: unit_rows(np.array([[1.0, 2], [2, 1]])), 4: unit_rows(np.ones((4, 2)))},
    )
    x = unit_rows(np.array([[2.0, 1], [1, 2]]))
    assert assign_leaves(x, levels, 2, 1, library)[0].tolist() == [0, 0]


@pytest.mark.parametrize("beam", [1, 2, 32])
@pytest.mark.parametrize("narrow", [False, True])
def test_libraries_find_the_same_leaves(beam, narrow):
    """Three levels with empty cells, with margins and without."""
    random_numbers = np.random.Generator(np.random.Philox(key=5))
    top = random(8, 24, 2)
    middle = unit_rows(np.repeat(top, 4, axis=0) + 0.25 * random_numbers.normal(size=(32, 24)))
    leaves = unit_rows(np.repeat(middle, 8, axis=0) + 0.2 * random_numbers.normal(size=(256, 24)))
    middle[5], leaves[40:48], leaves[100] = 0, 0, 0
    tree = Tree(Levels((8, 32, 256)), {8: top, 32: middle, 256: leaves})
    x = unit_rows(leaves[random_numbers.integers(256, size=4000)] + 0.9 * random(4000, 24, 3))
    if narrow:
        tree = with_margins(x[:1000], tree)
        assert min(tree.margins) > 0
    (torch_leaf, torch_distance), (leaf, distance) = (
        assign_leaves(5 * x, tree, beam, 2, library) for library in LIBRARIES
    )
    same = torch_leaf == leaf
    assert same.mean() > 0.99  # torch compares the cells of a full beam in bfloat16
    assert distance[same] == pytest.approx(torch_distance[same], abs=1e-4)
    assert distance.mean() == pytest.approx(torch_distance.mean(), rel=5e-3)
    assert tree.filled[256][leaf].all()
    if beam == 32 and not narrow:
        assert leaf.tolist() == nearest_centroid(x, leaves)[0].tolist()
    if beam == 1:
        assert 0.3 < (leaf == nearest_centroid(x, leaves)[0]).mean() < 0.99
        none = replace(tree, margins=(0.0, 0.0))  # the best cell alone is within it
        assert assign_leaves(x, none, 32, 1, "faiss")[0].tolist() == leaf.tolist()


def test_auto_is_a_rule_and_not_a_measurement(monkeypatch):
    assert load_backend("auto").name == ("faiss" if has_gpu() else "torch")
    load_backend.cache_clear()
    monkeypatch.setattr("pipeline.cluster.backends.with_faiss.has_gpu", lambda: True)
    assert backend.chosen_backend() == "faiss"


def test_the_number_of_threads_is_set_for_a_while():
    import faiss

    before = faiss.omp_get_max_threads()
    with faiss_threads(before + 1):
        assert faiss.omp_get_max_threads() == before + 1
    assert faiss.omp_get_max_threads() == before


def test_flash_is_refused_where_it_cannot_run(monkeypatch, tmp_path):
    """Before any work starts, whatever is missing."""
    config = parse(Build, write_corpus(tmp_path, documents=4), "test")
    config = config.model_copy(update={"cluster": Cluster(backend="flash")})
    monkeypatch.setitem(sys.modules, "flash_kmeans", None)
    with pytest.raises(UserError, match=r"cluster\.backend flash: .*pip install flash-kmeans"):
        check_request(config)
    monkeypatch.setattr(backend, "find_spec", lambda _: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"cluster\.backend flash: torch finds no GPU"):
        check_backend("flash")
    for library in ("auto", "torch", "faiss"):
        check_backend(library)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_gpu_finds_the_same_cells(library):
    x, centroids = random(10_000, 384), random(64, 384, 2)
    cell, _ = nearest_cells(x, centroids, 1, library)
    assert (cell == nearest_centroid(x, centroids)[0]).mean() > 0.999
