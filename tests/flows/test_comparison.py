"""Statistics of an experiment, by hand."""

from dataclasses import replace
from math import isnan

import pytest

from flows.comparison import (
    Result,
    best_fixed,
    dominated_by,
    frontier,
    frontier_gap,
    holm,
    mean_and_error,
    paired,
)
from flows.experiment_results import tables


def result(variant: str, mixer: str, test: float, general: float, seed: int = 0) -> Result:
    return Result(
        variant=variant,
        mixer=mixer,
        target="law",
        epochs=None,
        epochs_alone=2.0,
        seed=seed,
        steps=10,
        tokens=1000,
        parameters=100,
        test=test,
        validation=test,
        general=general,
        repeats=1.0,
        seconds=10.0,
        scoring_seconds=1.0,
    )


FIXED = [
    result("natural", "natural", 3.0, 2.0),
    result("half", "static", 2.0, 2.2),
    result("importance", "importance", 1.8, 3.0),
    result("bad", "static", 2.5, 2.5),  # worse than half on both
]


def test_the_frontier_has_no_dominated_mixture() -> None:
    general, test = frontier(FIXED)
    assert (general.tolist(), test.tolist()) == ([2.0, 2.2, 3.0], [3.0, 2.0, 1.8])


@pytest.mark.parametrize(
    ("test", "general", "gap"),
    [(2.5, 2.1, 0.0), (2.3, 2.1, -0.2), (2.1, 2.6, 0.2), (1.7, 3.5, -0.1), (3.1, 1.9, 0.1)],
)
def test_the_gap_is_measured_at_equal_general_loss(test: float, general: float, gap: float) -> None:
    assert frontier_gap(result("dga", "dga", test, general), FIXED) == pytest.approx(gap)


def test_a_fixed_mixture_is_not_compared_with_itself() -> None:
    assert frontier_gap(FIXED[1], FIXED) == pytest.approx(2.0 - 2.8)


def test_domination_needs_two_standard_errors_on_both_losses() -> None:
    runs = [
        run
        for seed, noise in enumerate((-0.01, 0.0, 0.01))
        for run in (
            result("half", "static", 2.0 + noise, 2.0, seed),
            result("worse", "dga", 2.1, 2.1 - noise, seed),
            result("mixed", "dga", 2.1, 1.9, seed),
            result("noisy", "dga", 2.0 + 5 * abs(noise), 2.1, seed),
        )
    ]
    assert dominated_by(runs, "worse") == ["half"]
    assert dominated_by(runs, "mixed") == dominated_by(runs, "half") == []
    assert dominated_by(runs, "noisy") == []


def test_a_single_pair_has_no_error_and_dominates_nothing() -> None:
    runs = [result("half", "static", 2.0, 2.0), result("dga", "dga", 3.0, 3.0)]
    difference = paired(runs, "dga", "half", "test")
    assert difference is not None
    assert difference.mean == 1.0
    assert isnan(difference.error)
    assert isnan(difference.p_value)
    assert dominated_by(runs, "dga") == []


def test_differences_are_paired_by_seed() -> None:
    runs = [
        run
        for seed, level in enumerate((1.0, 5.0, 9.0))
        for run in (
            result("a", "static", level, 2.0, seed),
            result("b", "dga", level + 0.1 + 0.01 * seed, 2.0, seed),
        )
    ]
    difference = paired([*runs, result("b", "dga", 99.0, 2.0, seed=7)], "b", "a", "test")
    assert difference is not None
    assert difference.mean == pytest.approx(0.11)
    assert difference.error == pytest.approx(0.01 / 3**0.5)
    assert difference.p_value == pytest.approx(0.0027, abs=1e-4)
    assert paired(runs, "b", "c", "test") is None


def test_the_best_fixed_mixture_is_chosen_on_validation() -> None:
    lucky = replace(FIXED[0], validation=0.5)
    assert best_fixed([*FIXED, lucky]) == "natural"
    assert best_fixed(FIXED) == "importance"
    assert best_fixed([result("dga", "dga", 1.0, 1.0)]) is None


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    found = holm([float("nan"), 0.02])
    assert isnan(found[0])
    assert found[1] == 0.02


def test_the_mean_and_its_error() -> None:
    found = mean_and_error([1.0, 2.0, 3.0])
    assert (found.mean, found.error, found.pairs) == (2.0, pytest.approx(3**-0.5), 3)


def test_tables_name_the_dominated_variants() -> None:
    runs = [
        run
        for seed in (0, 1, 2)
        for run in (
            result("half", "static", 2.0 + 0.001 * seed, 2.0, seed),
            result("dga", "dga", 2.2 + 0.002 * seed, 2.1 + 0.001 * seed, seed),
        )
    ]
    text = tables(runs, "half")
    assert "| dga | 2.2020 ± 0.0012 | +0.2010 ± 0.0006 |" in text
    assert "1 of 1: law at 2 (half)" in text


def test_predictions_stand_beside_the_measured_differences() -> None:
    runs = [result("half", "static", 2.0, 2.0), result("dga", "dga", 1.75, 2.0)]
    measured = (
        "| variant | mean − half | mean gap to the frontier | settings in which it is dominated |"
    )
    assert measured in tables(runs, "half")
    lines = tables(runs, "half", {"dga": -0.125}).splitlines()
    assert lines[-4:] == [
        measured.replace("| mean gap", "| predicted | mean gap"),
        "|---|---|---|---|---|",
        "| half | +0.0000 |  |  | 0 of 1 |",
        "| dga | -0.2500 | -0.1250 | -0.2500 | 0 of 1 |",
    ]


def test_the_table_of_a_setting_as_text() -> None:
    runs = [
        run
        for seed in (0, 1)
        for run in (
            result("half", "static", 2.0, 2.0, seed),
            result("dga", "dga", 1.75 + 0.125 * seed, 2.0, seed),
        )
    ]
    assert tables(runs, "half").split("\n\n")[:3] == [
        "### law, 2 epochs of its domains if drawn alone",
        "0.00 M tokens per run, 100 parameters, seeds 0, 1. Bits per byte.",
        "| variant | target | − half | p (Holm) | general | gap to the frontier "
        "| − best fixed (half) | repeats | seconds | scoring |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
        "| half | 2.0000 ± 0.0000 | +0.0000 ± 0.0000 |  | 2.0000 ± 0.0000 |  "
        "| +0.0000 ± 0.0000 | 1.00 | 10 | 10% |\n"
        "| dga | 1.8125 ± 0.0625 | -0.1875 ± 0.0625 | 0.205 | 2.0000 ± 0.0000 "
        "| -0.1875 ± 0.0625 | -0.1875 ± 0.0625 | 1.00 | 10 | 10% |",
    ]


def test_replays_and_shuffled_scores_are_controls() -> None:
    learned = result("dga", "dga", 1.0, 1.0)
    assert learned.role == "learned"
    assert replace(learned, control=True).role == "control"
    assert replace(learned, mixer="replay").role == "control"
    assert replace(learned, mixer="static").role == "fixed"
    older = {key: value for key, value in learned.row().items() if key != "control"}
    assert Result(**older) == learned
