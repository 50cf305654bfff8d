"""The basis of every mixer, on the tiny catalog."""

from pathlib import Path

import numpy as np
import pytest

from data_catalog import UserError
from data_catalog.format.distributions import Basis
from data_catalog.format.files import open_files
from tests.helpers.tiny_catalog import write_tiny_catalog
from trainer.mixture_config import Mixture
from trainer.sampling.basis import build_basis
from trainer.sampling.fill import Fill

SEQUENCES = np.array([4, 2, 2, 8, 1, 3, 0, 0])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_catalog(tmp_path_factory.mktemp("catalog"))


def basis(root: Path, draws: int = 20, **settings: object) -> Basis:
    mixture = Mixture.model_validate({"kind": "hard", **settings})
    return build_basis(open_files(root), mixture, "spe", SEQUENCES, Fill(None), draws)


def test_the_basis_has_what_the_prior_starts_from(root: Path) -> None:
    assert basis(root, names=("uniform",)).names == ("uniform", "spe", "natural")
    targets = {"other": 1.0, "general": 1.0}
    assert basis(root, names=("uniform",), targets=targets).names == ("uniform", "other", "natural")
    assert basis(root, names=("uniform",), mixer="ado").names == ("uniform",)


def test_static_mixers_have_one_row(root: Path) -> None:
    uniform = basis(root, mixer="uniform")
    assert uniform.names == ("uniform",)
    np.testing.assert_allclose(
        uniform.matrix, [np.array([1, 1, 1, 1, 1, 1, 0, 0]) / 6]
    )  # leaves without sequences cannot be drawn
    assert basis(root, mixer="importance").matrix.tolist() == [[0, 0, 1, 0, 0, 0, 0, 0]]
    assert basis(root, mixer="natural").names == ("natural",)


def test_a_static_mixture_of_several_targets(root: Path) -> None:
    one, other, natural = (
        basis(root, mixer="static", target_share=share, targets=targets).matrix
        for share, targets in ((1.0, {}), (1.0, {"other": 2.0}), (0.0, {}))
    )
    mixed = basis(root, mixer="static", target_share=0.5, targets={"other": 3, "general": 1})
    # Not exact: the mixture is normalised again, because two leaves here have no sequences.
    np.testing.assert_allclose(mixed.matrix, 0.375 * other + 0.625 * natural, rtol=0.01)
    both = basis(root, mixer="static", target_share=1.0, targets={"other": 1, "spe": 1})
    np.testing.assert_allclose(both.matrix, 0.5 * other + 0.5 * one, rtol=0.01)


def test_natural_replaces_a_tenth_of_the_draws_that_would_repeat(root: Path) -> None:
    """The target has one leaf of two sequences, which 20 draws would repeat 18 times."""
    for draws, share in ((20, 0.91), (4, 0.95), (2, 0.98)):
        auto, given = (
            basis(root, draws, mixer="static", target_share=wanted).matrix
            for wanted in ("auto", share)
        )
        np.testing.assert_array_equal(auto, given)


def test_importance_at_a_coarse_level_is_uniform_inside_the_domain(root: Path) -> None:
    np.testing.assert_allclose(
        basis(root, mixer="importance", level=2).matrix,
        [[4 / 16, 2 / 16, 2 / 16, 8 / 16, 0, 0, 0, 0]],
    )


def test_unimax_depends_on_the_length_of_the_run(root: Path) -> None:
    def drawn(draws: int, **settings: object) -> list[float]:
        return (basis(root, draws, mixer="unimax", **settings).matrix[0] * draws).tolist()

    assert drawn(6) == pytest.approx([1, 1, 1, 1, 1, 1, 0, 0])
    assert drawn(34) == pytest.approx([6, 6, 6, 6, 4, 6, 0, 0])
    assert drawn(16, maximum_epochs=1) == pytest.approx([4, 2, 2, 4, 1, 3, 0, 0])
    assert drawn(40, maximum_epochs=1) == pytest.approx([8, 4, 4, 16, 2, 6, 0, 0])
    assert drawn(16, maximum_epochs=1, level=2) == pytest.approx([3, 1.5, 1.5, 6, 1, 3, 0, 0])


def test_dga_uses_all_distributions_of_its_kind_and_the_built_in_ones(root: Path) -> None:
    found = basis(root)
    assert found.names == ("other", "spe", "natural", "uniform")
    np.testing.assert_allclose(found.matrix.sum(axis=1), 1)
    assert (found.matrix[:, 6:] == 0).all()
    assert basis(root, names=("spe", "uniform"), prior="even").names == ("spe", "uniform")
    assert basis(root, kind="distance").matrix[1, 0] > 0


def test_domains_with_identity_rows_equal_distributions_with_identity_rows(root: Path) -> None:
    domains = basis(root, basis="domains")
    assert domains.names == ("0", "1", "2", "3", "4", "5")
    assert domains.matrix.tolist() == np.eye(8)[:6].tolist()
    coarse = basis(root, basis="domains", level=2)
    np.testing.assert_allclose(
        coarse.matrix, [[0.25, 0.125, 0.125, 0.5, 0, 0, 0, 0], [0, 0, 0, 0, 0.25, 0.75, 0, 0]]
    )


def test_unknown_names_and_levels_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match="nosuch"):
        basis(root, names=("nosuch",))
    with pytest.raises(UserError, match="level 4"):
        basis(root, level=4)
    with pytest.raises(UserError, match=r"mixture.names"):
        basis(root, names=("spe", "spe"))
