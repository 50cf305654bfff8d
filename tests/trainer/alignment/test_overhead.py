"""The cost of measuring, by hand, and the cadence within a budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.alignment.overhead import MeasurementCadence, scoring_share, within_budget
from trainer.config import Mixture

PLAIN = {"update_every_steps": 100, "basis_sequences": 8, "target_sequences": 32}


def mixture(**changed: object) -> Mixture:
    return Mixture.model_validate({**PLAIN, "scores": "raw", **changed})


@pytest.mark.parametrize(
    ("changed", "work"),  # in forward passes of one sequence, by hand: 20 members, batches of 64
    [
        ({}, 3 * 32 + 3 * 160),
        ({"backend": "ghost"}, 3 * 32 + 4 * 160),
        ({"backend": "finite_difference"}, 3 * 32 + 2 * 160),
        ({"backend": "ghost", "measure_on": "batch"}, 3 * 32 + 64),
        ({"backend": "finite_difference", "measure_on": "batch"}, 3 * 32 + 2 * 64),
        ({"mixer": "doge", "toward": "members"}, 3 * 160 + 3 * 160),
        ({"mixer": "odm"}, 160),
        ({"mixer": "doremi", "reference": "elsewhere"}, 2 * 160),
        ({"mixer": "natural"}, 0),
    ],
)
def test_the_share_of_the_training_work(changed: dict[str, object], work: int) -> None:
    assert scoring_share(mixture(**changed), 20, 64) == pytest.approx(work / (3 * 64 * 100))


def test_the_published_figures() -> None:
    """METHOD 6: Measuring takes 3 % with probes and 0.8 % on the batch.

    There are 20 domains, batches of 64 and updates every 100 steps.
    """
    assert scoring_share(mixture(), 20, 64) == pytest.approx(0.03)
    assert scoring_share(mixture(backend="ghost", measure_on="batch"), 20, 64) == pytest.approx(
        0.008, abs=0.0004
    )


@pytest.mark.parametrize(
    ("budget", "expected"),  # 0.03 at first
    [
        (None, (100, 8, 32)),
        (0.03, (100, 8, 32)),
        (0.02, (150, 8, 32)),
        (0.0075, (400, 8, 32)),
        (0.007, (400, 7, 32)),  # (32 + 20 * 7) / (64 * 400) = 0.0067
        (0.003, (400, 2, 32)),  # 0.0028
        (0.002, (563, 2, 32)),  # 72 / (64 * 0.002) = 562.5
    ],
)
def test_updates_become_rarer_then_smaller_then_rarer_again(
    budget: float | None, expected: tuple[int, int, int]
) -> None:
    assert within_budget(mixture(overhead_budget=budget), 20, 64) == MeasurementCadence(*expected)


def test_members_measured_on_the_batch_keep_their_sequences() -> None:
    found = within_budget(
        mixture(overhead_budget=0.0001, backend="ghost", measure_on="batch"), 20, 64
    )
    assert found.basis_sequences == 8
    assert found.update_every_steps == 8334  # (96 + 64) / (3 * 64 * 0.0001)


@given(
    st.floats(1e-4, 0.9),
    st.integers(1, 300),
    st.integers(1, 512),
    st.integers(1, 200),
    st.integers(1, 40),
    st.integers(1, 64),
    st.sampled_from(["exact", "ghost", "finite_difference"]),
)
def test_the_cadence_is_within_the_budget_and_uses_all_of_it(
    budget: float, members: int, batch: int, every: int, basis: int, target: int, backend: str
) -> None:
    chosen = mixture(
        overhead_budget=budget,
        update_every_steps=every,
        basis_sequences=basis,
        target_sequences=target,
        backend=backend,
    )
    cadence = within_budget(chosen, members, batch)
    assert scoring_share(chosen, members, batch, cadence) <= budget * (1 + 1e-9)
    assert cadence.update_every_steps >= every
    assert min(basis, 2) <= cadence.basis_sequences <= basis
    if cadence.update_every_steps not in (every, 4 * every):
        sooner = cadence._replace(update_every_steps=cadence.update_every_steps - 1)
        assert scoring_share(chosen, members, batch, sooner) > budget * (1 - 1e-9)
