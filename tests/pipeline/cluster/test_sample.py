import numpy as np
import pytest

from pipeline.cluster.backends.backend import nearest_cells
from pipeline.cluster.kmeans import unit_rows
from pipeline.cluster.sample import draw_sample, sort_by_cell

pytestmark = pytest.mark.usefixtures("each_backend")


@pytest.fixture
def maps() -> list[np.ndarray]:
    """Three parts, of which one is empty. All vectors differ."""
    random = np.random.Generator(np.random.Philox(key=1))
    return [random.normal(size=(n, 6)).astype(np.float16) for n in (400, 0, 200)]


def places(rows) -> set[tuple[int, int]]:
    return {(i, int(row)) for i, taken in enumerate(rows.taken) for row in taken}


def test_sample_and_held_out_documents_are_disjoint_and_proportional(maps):
    sample, held = draw_sample(maps, 301, 30, 0)
    assert [len(rows) for rows in sample.taken] == [201, 0, 100]
    assert [len(rows) for rows in held.taken] == [19, 0, 11]
    assert (len(places(sample)), len(places(held)), len(places(sample) | places(held))) == (
        301,
        30,
        331,
    )
    again, other = draw_sample(maps, 301, 30, 0)[0], draw_sample(maps, 301, 30, 1)[0]
    assert places(again) == places(sample) != places(other)


def test_all_documents_can_be_sampled(maps):
    sample, held = draw_sample(maps, 590, 10, 0)
    assert len(places(sample) | places(held)) == 600
    assert len(draw_sample(maps, 600, 0, 0)[1]) == 0


@pytest.mark.parametrize("rows", [7, 1000])
def test_vectors_are_read_in_order_and_of_unit_length(monkeypatch, maps, rows):
    monkeypatch.setattr("pipeline.cluster.sample.READ_ROWS", rows)
    sample, _ = draw_sample(maps, 300, 0, 0)
    expected = np.concatenate(
        [unit_rows(x[taken]) for x, taken in zip(maps, sample.taken, strict=True)]
    ).astype(np.float16)
    assert sample.read().tobytes() == expected.tobytes()


def test_some_returns_a_subset_without_repetition(maps):
    sample, _ = draw_sample(maps, 300, 0, 0)
    some = sample.some(100, 0)
    assert len(places(some)) == len(some) == 100
    assert places(some) < places(sample)
    assert all((np.diff(taken) > 0).all() for taken in some.taken)
    assert sample.some(300, 0) is sample


@pytest.mark.parametrize("workers", [1, 2])
def test_a_partition_is_the_sample_sorted_by_cell(monkeypatch, tmp_path, maps, workers):
    monkeypatch.setattr("pipeline.cluster.sample.READ_ROWS", 64)
    sample, _ = draw_sample(maps, 300, 0, 0)
    centroids = np.eye(6, dtype=np.float32)
    centroids[2] = 0
    found, ends = sort_by_cell(sample, centroids, tmp_path, workers)
    x = sample.read()
    cells = nearest_cells(x, centroids)[0]
    assert found.tobytes() == x[np.argsort(cells, kind="stable")].tobytes()
    assert ends.tolist() == np.cumsum(np.bincount(cells, minlength=6)).tolist()
    stamp = (tmp_path / "sample.npy").stat().st_mtime_ns
    assert sort_by_cell(sample, centroids, tmp_path, workers)[0].tobytes() == found.tobytes()
    assert (tmp_path / "sample.npy").stat().st_mtime_ns == stamp


def test_an_unfinished_partition_is_made_again(tmp_path, maps):
    sample, _ = draw_sample(maps, 300, 0, 0)
    whole = sort_by_cell(sample, np.eye(6, dtype=np.float32), tmp_path, 1)[0].tobytes()
    (tmp_path / "ends.npz").unlink()
    (tmp_path / "sample.npy").write_bytes(b"half of it")
    assert sort_by_cell(sample, np.eye(6, dtype=np.float32), tmp_path, 1)[0].tobytes() == whole
