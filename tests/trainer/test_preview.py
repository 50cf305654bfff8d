"""The preview, on the tiny catalog.

Its leaves have 60, 36, 45, 24, 18, 30, 0 and 2 sequences of 16 tokens.
"""

from pathlib import Path

import pytest

from data_catalog.errors import UserError
from tests.helpers.tiny_catalog import write_tiny_catalog
from tests.helpers.tiny_training import tiny_config
from trainer.preview import Preview, preview


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_catalog(tmp_path_factory.mktemp("preview") / "catalog")


def test_a_static_mixture(catalog: Path) -> None:
    found = preview(tiny_config(catalog, catalog / "out", mixture={"mixer": "natural"}))
    assert (found.steps, found.tokens, found.level) == (28, 28 * 6 * 16, 8)
    assert (
        found.reached_domains,
        found.empty_domains,
        found.reached_leaves,
        found.empty_leaves,
    ) == (7, 1, 7, 1)
    (member,) = found.members
    assert (member.name, member.weight, member.drawn_tokens) == ("natural", 1.0, 2688)
    assert member.tokens == 143 * 24 - 7  # every token but the first of each leaf
    assert member.epochs == member.epochs_alone == pytest.approx(168 / 215, rel=0.01)
    assert (found.updates, found.scoring_share, found.bounded_tokens, found.used_up) == (
        0,
        0.0,
        None,
        (),
    )
    assert found.memory_bytes is not None
    assert found.memory_bytes.alignment == 0


def test_members_of_a_learned_mixture(catalog: Path) -> None:
    found = preview(tiny_config(catalog, catalog / "out", data={"draw_by": "sequences"}))
    members = {member.name: member for member in found.members}
    assert list(members) == ["other", "spe", "natural", "uniform"]
    assert members["spe"].epochs_alone == pytest.approx(168 / 45)  # leaf 2
    assert members["spe"].drawn_tokens == 2688 // 4
    leaf_2 = 0.25 * (
        1 + 768 / 3720 + 1 / 7
    )  # of the mixture: natural is by tokens, held-out ones too, uniform over the 7 with text
    assert members["spe"].epochs == pytest.approx(168 / 45 * leaf_2)
    assert found.updates == 5
    assert found.scoring_share == pytest.approx((8 + 4 * 4) / (6 * 5))
    assert found.memory_bytes is not None
    assert found.memory_bytes.alignment == 4 * (found.parameters or 0)


def test_used_up_domains_are_listed_with_their_step(catalog: Path) -> None:
    found = preview(
        tiny_config(
            catalog,
            catalog / "out",
            mixture={"mixer": "uniform"},
            data={"max_epochs": 1.0, "draw_by": "sequences"},
        )
    )
    assert found.bounded_tokens == 215 * 16
    assert found.used_up_domains == 2  # each gets 24 draws: just what domain 3 has
    assert [(one.domain, one.tokens, one.step) for one in found.used_up] == [
        (7, 32, 2),
        (4, 288, 21),
    ]


def test_the_overhead_budget_changes_the_cadence(catalog: Path) -> None:
    found = preview(tiny_config(catalog, catalog / "out", mixture={"overhead_budget": 0.5}))
    assert (
        found.update_every_steps,
        found.basis_sequences,
        found.target_sequences,
        found.updates,
    ) == (8, 4, 8, 3)
    assert found.scoring_share == pytest.approx(0.5)


def test_an_impossible_run_is_refused(catalog: Path) -> None:
    with pytest.raises(UserError, match=r"data\.max_epochs .*1,712 tokens .* 2,688"):
        preview(
            tiny_config(
                catalog, catalog / "out", mixture={"mixer": "natural"}, data={"max_epochs": 0.5}
            )
        )


def test_a_preview_can_be_sent_as_json(catalog: Path) -> None:
    found = preview(tiny_config(catalog, catalog / "out"))
    assert '"total":' in found.model_dump_json()
    assert (
        Preview.model_validate_json(found.model_dump_json(exclude={"memory_bytes": {"total"}}))
        == found
    )
