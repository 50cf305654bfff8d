"""The cost of measuring, by hand, and the cadence within a budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.alignment.overhead import (
    MeasurementCadence,
    cadence_of,
    scoring_share,
    updates_of,
    within_budget,
)
from trainer.config import Train
from trainer.mixture_config import Mixture

PLAIN = {"update_every_steps": 100, "basis_sequences": 8, "target_sequences": 32}
PROBES = {"backend": "exact", "measure_on": "probes"}


def mixture(**changed: object) -> Mixture:
    return Mixture.model_validate({**PLAIN, **PROBES, "scores": "raw", **changed})


def cadence(of: Mixture) -> MeasurementCadence:
    return MeasurementCadence(of.update_every_steps, of.basis_sequences, of.target_sequences)


def share(of: Mixture) -> float:
    return scoring_share(of, 20, 64, cadence(of))


def budgeted(of: Mixture, members: int = 20, batch: int = 64) -> MeasurementCadence:
    return within_budget(of, members, batch, cadence(of))


def training(steps: int, **changed: object) -> Train:
    return Train.model_validate(
        {
            "catalog": "c",
            "out": "o",
            "target": "t",
            "training": {"steps": steps},
            "mixture": {"update_every_steps": 0, **changed},
        }
    )


@pytest.mark.parametrize("steps", [10_000, 100_000, 1_000_000])
def test_a_run_of_any_length_has_the_same_number_of_updates(steps: int) -> None:
    config = training(steps, updates=30)
    assert updates_of(config, cadence_of(config, 20)) == pytest.approx(30, abs=1)


@pytest.mark.parametrize(
    ("steps", "every", "mixture", "cost"),  # of an update, in steps
    [
        (300, 60, PROBES, 3.0),
        (1_000, 150, PROBES, 3.0),
        (4_500, 150, PROBES, 3.0),
        (300, 42, {}, 5 / 6),
        (1_000, 42, {}, 5 / 6),
        (4_500, 145, {}, 5 / 6),
    ],
)
def test_measuring_takes_at_most_two_percent_of_all_but_short_runs(
    steps: int, every: int, mixture: dict[str, object], cost: float
) -> None:
    config = training(steps, **mixture)
    cadence = cadence_of(config, 20)
    assert cadence.update_every_steps == every
    assert scoring_share(config.mixture, 20, 64, cadence) == pytest.approx(cost / every)


def test_a_short_run_updates_before_every_step() -> None:
    config = training(3, updates=30)
    assert cadence_of(config, 20).update_every_steps == 1
    assert updates_of(config, cadence_of(config, 20)) == 2


def test_an_interval_is_at_least_as_long_as_the_steps_that_are_measured() -> None:
    batch = {"measure_on": "batch", "backend": "ghost"}
    assert cadence_of(training(20, **batch), 20).update_every_steps == 4
    config = training(20, measure_steps=8, **batch)
    assert cadence_of(config, 20).update_every_steps == 8
    assert updates_of(config, cadence_of(config, 20)) == 2  # at 8 and 16


def test_updates_begin_after_the_warmup() -> None:
    config = training(100, update_every_steps=10, warmup_steps=35)
    assert updates_of(config, cadence_of(config, 20)) == 6  # at 40, 50, ..., 90
    assert updates_of(training(100, mixer="natural"), cadence_of(config, 20)) == 0


@pytest.mark.parametrize(
    ("changed", "work"),  # in forward passes of one sequence, by hand: 20 members, batches of 64
    [
        ({}, 3 * 32 + 3 * 160),
        ({"backend": "ghost"}, 3 * 32 + 4 * 160),
        ({"backend": "finite_difference"}, 3 * 32 + 2 * 160),
        ({"backend": "ghost", "measure_on": "batch"}, 3 * 32 + 64),
        ({"backend": "finite_difference", "measure_on": "batch"}, 3 * 32 + 2 * 64),
        ({"backend": "ghost", "measure_on": "batch", "measure_steps": 8}, 8 * (3 * 32 + 64)),
        (
            {
                "backend": "ghost",
                "measure_on": "batch",
                "measure_steps": 8,
                "targets": {"law": 1, "math": 1, "general": 1},
                "target_weights": "improvement",
            },
            8 * (3 * 3 * 32 + 64) + 3 * 32,
        ),
        ({"mixer": "doge", "toward": "members"}, 3 * 160 + 3 * 160),
        ({"mixer": "odm"}, 160),
        ({"mixer": "doremi", "reference": "elsewhere"}, 2 * 160),
        ({"mixer": "natural"}, 0),
    ],
)
def test_the_share_of_the_training_work(changed: dict[str, object], work: int) -> None:
    assert share(mixture(**changed)) == pytest.approx(work / (3 * 64 * 100))


def test_the_published_figures() -> None:
    """METHOD 6: Measuring takes 3 % with probes and 0.8 % on the batch.

    There are 20 domains, batches of 64 and updates every 100 steps.
    """
    assert share(mixture()) == pytest.approx(0.03)
    assert share(mixture(backend="ghost", measure_on="batch")) == pytest.approx(0.008, abs=0.0004)


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
    assert budgeted(mixture(overhead_budget=budget)) == MeasurementCadence(*expected)


def test_members_measured_on_the_batch_keep_their_sequences() -> None:
    found = budgeted(mixture(overhead_budget=0.0001, backend="ghost", measure_on="batch"))
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
    found = budgeted(chosen, members, batch)
    assert scoring_share(chosen, members, batch, found) <= budget * (1 + 1e-9)
    assert found.update_every_steps >= every
    assert min(basis, 2) <= found.basis_sequences <= basis
    if found.update_every_steps not in (every, 4 * every):
        sooner = found._replace(update_every_steps=found.update_every_steps - 1)
        assert scoring_share(chosen, members, batch, sooner) > budget * (1 - 1e-9)
