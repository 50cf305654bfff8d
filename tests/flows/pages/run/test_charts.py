"""Data of the charts of the run page: losses, weights, scores and rates."""

from pathlib import Path

import numpy as np
import pytest

from flows.pages.run.data import read_runs
from flows.pages.run.domains import read_domains
from flows.pages.run.losses import final_panels, final_sets, loss_panels
from flows.pages.run.payload import run_page_data
from flows.pages.run.speed import speed_panels
from flows.pages.run.weights import weights_charts
from flows.pages.shared.numbers import json_numbers
from tests.flows.pages.run.test_data import TERMS, read
from tests.helpers.tiny_run import add_records, change_config, write_catalog, write_run


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return write_catalog(tmp_path / "catalog", [1000, 2000, 2000, 5000], TERMS)


# --- losses.py


def test_the_loss_panel_cuts_off_the_initial_drop(tmp_path: Path) -> None:
    panel = loss_panels(read_runs([write_run(tmp_path / "a")]))[0]
    points = [[0, 6], [4000, 4], [8000, 3], [12000, 2.5], [16000, 2.25], [20000, 2]]
    assert panel["series"] == [
        {"run": 0, "points": [[*point, None, None] for point in points], "boundary": None}
    ]
    assert panel["top"] == [pytest.approx(4.1), None]  # 4.0 and a twentieth of 4.0 - 2.0
    few = loss_panels(read_runs([write_run(tmp_path / "b", losses=(6.0, 4.0))]))
    assert [(p["title"], p["top"]) for p in few] == [
        ("Target: held-out text", [None, None]),
        ("General: held-out corpus text", [None, None]),
    ]


def test_the_initial_drop_is_the_first_tenth_of_the_tokens(tmp_path: Path) -> None:
    losses = (6.0, 5.0, 4.0, *np.linspace(3.0, 2.0, 18))  # a tenth of the tokens ends at the third
    panel = loss_panels(read_runs([write_run(tmp_path / "a", losses=losses)]))[0]
    assert panel["top"] == [pytest.approx(4.1), None]


def test_there_is_a_panel_per_target_and_questions_show_accuracy(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "a"), write_run(tmp_path / "b", target="other")]
    name = "target/validation/choices"
    for step in (0, 10, 20):
        record = {
            "kind": "eval",
            "step": step,
            "tokens": 400 * step,
            "set": name,
            "loss": 1.4,
            "error": 0.1,
            "sequences": 9,
        }
        add_records(folders[1], {**record, "accuracy": 0.25, "accuracy_error": 0.125})
    panels = loss_panels(read_runs(folders))
    assert [[p["title"], p["unit"], [s["run"] for s in p["series"]]] for p in panels] == [
        ["Target goal: held-out text", "loss", [0]],
        ["Target other: held-out text", "loss", [1]],
        ["General: held-out corpus text", "loss", [0, 1]],
        [name, "accuracy", [1]],
    ]
    assert panels[-1]["series"][0]["points"][0] == [0, 0.25, 0.125, None]


def test_final_losses_before_and_after_fine_tuning(tmp_path: Path, catalog: Path) -> None:
    folder = write_run(tmp_path / "a", losses=(6.0, 4.0, 3.0))
    change_config(folder, config={"training": {"steps": 10}, "finetune": {"steps": 10}})
    for step, loss in ((10, 5.0), (20, 4.5)):
        for name in ("domain/1", "domain/0", "goal/test"):
            add_records(
                folder,
                {
                    "kind": "eval",
                    "step": step,
                    "tokens": 400 * step,
                    "set": name,
                    "loss": loss,
                    "error": 0.5,
                    "bits_per_byte": 2.5,
                },
            )
    run = read(folder)
    assert run.boundary() == 4000
    change_config(folder, config={"training": {"steps": 30}})
    assert read(folder).boundary() is None  # not reached yet
    sets = final_sets([run], read_domains(catalog, [run]))
    assert [(s.label, s.last[0].loss, s.before[0] and s.before[0].loss) for s in sets] == [
        ("target/test", 3.125, None),
        ("target/validation", 3.0, 4.0),
        ("general", 4.0, 5.0),
        ("goal/test", 4.5, 5.0),
        ("domain 0 (tensor, layer)", 4.5, 5.0),
        ("domain 1 (plot, axis)", 4.5, 5.0),
    ]
    panels = final_panels(sets, maximum=2)
    assert [(p["title"], [row["label"] for row in p["rows"]], p["left_out"]) for p in panels] == [
        ("Target and general text", ["general", "target/test"], 1),
        ("Sets of documents", ["goal/test"], 0),
        ("Top-level domains", ["domain 0 (tensor, layer)", "domain 1 (plot, axis)"], 0),
    ]
    assert panels[1]["rows"][0]["values"] == [[0, 4.5, 0.5, 2.5]]


# --- weights.py


def test_weights_are_constant_between_updates(tmp_path: Path) -> None:
    [chart] = weights_charts(
        [read(write_run(tmp_path / "a", losses=(3.0, 2.0, 1.0), basis=["x", "y"]))], None
    )
    a = np.exp(0.5) / (np.exp(0.5) + 1)
    assert (chart["axis"], chart["starts"], chart["end"], chart["names"]) == (
        "training tokens",
        [0, 4000],
        8000,
        ["x", "y"],
    )
    assert (chart["others"], chart["heat"], chart["measured"], chart["effective_domains"]) == (
        False,
        None,
        [],
        None,
    )
    assert chart["alpha"][0] == pytest.approx([0.5, a], rel=1e-5)
    assert chart["sampling"][0] == pytest.approx([0.5, 0.25 + 0.5 * a], rel=1e-5)
    assert chart["effective"][0] == 2


def test_weights_end_at_the_start_of_fine_tuning(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", losses=(3.0, 2.0, 1.0), basis=["x", "y"])
    change_config(folder, config={"training": {"steps": 15}, "finetune": {"steps": 5}})
    assert weights_charts([read(folder)], None)[0]["end"] == 6000


def test_a_large_basis_has_a_sum_of_small_members_and_a_heat_map(tmp_path: Path) -> None:
    [chart] = weights_charts(
        [read(write_run(tmp_path / "a", losses=(3.0,), basis=[f"b{i}" for i in range(40)]))], None
    )
    assert (chart["names"][-1], len(chart["names"]), chart["members"]) == ("33 others", 8, 40)
    assert chart["sampling"][-1] == [pytest.approx(33 / 40)]
    heat = chart["heat"]
    assert (len(heat["names"]), heat["names"][0], heat["rows"][0], heat["left_out"]) == (
        32,
        "b0",
        [0.025],
        8,
    )


def test_scores_have_standard_errors_if_known(tmp_path: Path, catalog: Path) -> None:
    folder = write_run(tmp_path / "a", losses=(3.0, 2.0, 1.0), basis=["goal", "natural"])
    add_records(
        folder,
        {
            "kind": "update",
            "step": 10,
            "stage": 1,
            "scores": [0.5, 0.25],
            "errors": [0.125, None],
            "losses": [3.0, 4.0],
        },
    )
    add_records(
        folder, {"kind": "update", "step": 20, "stage": 2, "scores": [0.75, None]}
    )  # an older record, and a member that was not sampled
    run = read(folder)
    [chart] = weights_charts([run], read_domains(catalog, [run]))
    scores, losses = chart["measured"]
    assert (scores["unit"], losses["unit"]) == ("dot product of the gradients", "nats per token")
    assert [panel["tokens"] for panel in (scores, losses)] == [[4000, 8000]] * 2
    assert scores["series"] == [[[0.5, 0.75], [0.125, None]], [[0.25, None], [None, None]]]
    assert losses["series"] == [[[3, None], None], [[4, None], None]]
    mix = np.array([0.55, 0.1, 0.1, 0.25])  # half goal, half natural
    assert chart["effective_domains"][0] == pytest.approx(
        float(np.exp(-(mix * np.log(mix)).sum())), rel=1e-5
    )


# --- speed.py, payload.py


def test_rates_are_read_or_computed_from_sums(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", losses=(6.0, 4.0))
    new = {
        "seconds": 9.0,
        "data_seconds": 0.3,
        "scoring_seconds": 1.5,
        "tokens_per_second": 1.0,
        "data_share": 0.5,
        "scoring_share": 0.25,
    }
    add_records(
        folder, {"kind": "train", "step": 20, "tokens": 8000, "loss": 3.0, **new, "mfu": None}
    )
    add_records(folder, {"kind": "bounds", "step": 10, "stage": 1, "moved": 0.125})
    panels = {
        panel["title"]: panel["series"][0]["points"] for panel in speed_panels([read(folder)])
    }
    assert panels["Tokens per second"] == [[4000, 800], [8000, 1]]
    assert panels["Time spent waiting for data"] == [[4000, 0.04], [8000, 0.5]]
    assert panels["Time spent measuring"] == [[4000, 0.2], [8000, 0.25]]
    assert panels["Samples redirected by bounds"] == [[4000, 0.125]]
    assert "Model FLOPs utilisation" not in panels


def test_domain_rows_have_all_columns_of_the_table(tmp_path: Path, catalog: Path) -> None:
    runs = read_runs(
        [write_run(tmp_path / "begun", usage=None, losses=()), write_run(tmp_path / "a")]
    )
    found = run_page_data(runs, read_domains(catalog, runs))["domains"]
    assert (found["runs"], found["expected"], found["target"], found["filled"]) == (
        [1],
        [],
        "goal",
        4,
    )
    assert found["rows"][0] == [0, "tensor, layer", 100, 1000, 4, 0.1, 1, [0.3], [3], [0]]
    assert found["rows"][3] == [3, "date", 500, 5000, 1, 0.5, 0, [0.4], [0.5], [8000]]


def test_numbers_are_rounded_and_nan_becomes_none() -> None:
    assert json_numbers(np.array([1.0, 0.12345678, np.nan, np.inf])) == [1, 0.123457, None, None]
