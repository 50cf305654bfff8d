from dataclasses import replace

import numpy as np
import pytest

from data_catalog import UserError
from data_catalog.format.layout import Levels
from pipeline.cluster.tree import Tree, load_tree, save_tree
from tests.helpers.tiny_tree import angle, compass_tree


@pytest.fixture
def compass() -> Tree:
    return compass_tree()


def test_a_tree_is_read_from_a_folder_or_a_file(compass, tmp_path):
    save_tree(compass, tmp_path / "centroids.npz")
    for place in (tmp_path, tmp_path / "centroids.npz"):
        found = load_tree(place)
        assert found.levels == Levels((4, 8))
        assert np.array_equal(found.centroids[8], compass.centroids[8])
        assert (found.margins, found.radius) == (None, None)
    save_tree(
        replace(compass, margins=(0.25,), radius=np.arange(8, dtype=np.float32)),
        tmp_path / "centroids.npz",
    )
    found = load_tree(tmp_path)
    assert (found.margins, found.radius.tolist()) == ((0.25,), list(range(8)))


def test_a_tree_has_upper_levels(compass):
    tree = Tree(Levels((2, 4, 8)), {2: angle(45, 180), **compass.centroids}, (0.5, 0.25))
    upper = tree.to_level(4)
    assert (upper.levels, upper.margins, list(upper.centroids)) == (Levels((2, 4)), (0.5,), [2, 4])
    assert compass.to_level(8).levels == compass.levels


def test_a_missing_or_broken_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"centroids\.npz: "):
        load_tree(tmp_path)
    (tmp_path / "centroids.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match=r"centroids\.npz: "):
        load_tree(tmp_path)


def test_levels_must_fit_together(compass):
    with pytest.raises(UserError, match=r"tree: level 8 .*\(4, 2\)"):
        Tree(Levels((4, 8)), {4: compass.centroids[4], 8: compass.centroids[4]})
    with pytest.raises(UserError, match=r"tree: .*empty children"):
        Tree(
            Levels((4, 8)),
            {
                4: compass.centroids[4],
                8: np.where(np.arange(8)[:, None] == 4, 0, compass.centroids[8]),
            },
        )
