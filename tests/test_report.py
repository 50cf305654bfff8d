"""What the report says: exact numbers from tiny runs."""

import logging
from pathlib import Path

import numpy as np
import pytest

from data_catalog.errors import UserError
from flows.report import summary_table, write_report
from flows.report.charts import loss_panel, payload, plain, weights_chart
from flows.report.data import read_runs
from flows.report.domains import drawn, final_mix, read_domains
from tests.tiny_run import write_catalog, write_run

TERMS = [["tensor", "layer"], ["socket"], ["plot", "axis"], ["date"]]


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return write_catalog(tmp_path / "catalog", [1000, 2000, 2000, 5000], TERMS)


# --- data.py


def test_summary_has_the_last_numbers_of_a_run(tmp_path: Path) -> None:
    assert summary_table([write_run(tmp_path / "a")]) == [
        {
            "run": "a",
            "mixer": "dga",
            "target": "goal",
            "finished": True,
            "steps": 50,
            "tokens": 20_000,
            "target_validation_loss": 2.0,
            "target_test_loss": 2.125,
            "general_loss": 3.0,
            "repeats": 1.25,
            "seconds": 25.0,
            "scoring_share": 0.2,
            "data_share": 0.04,
            "model_parameters": 1000,
        }
    ]


def test_summary_of_a_run_under_way(tmp_path: Path) -> None:
    row = summary_table([write_run(tmp_path / "a", usage=None)])[0]
    assert (row["finished"], row["steps"], row["tokens"], row["target_test_loss"], row["repeats"]) == (False, 50, 20_000, None, None)


def test_repeats_come_from_usage_where_the_last_record_is_missing(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(line for line in lines if '"final"' not in line))
    assert summary_table([folder])[0]["repeats"] == pytest.approx(200 / 160)  # 60 + 20 + 40 + 80 drawn, 20 + 20 + 40 + 80 distinct


def test_a_half_written_last_line_is_no_fault_and_a_broken_one_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_run(tmp_path / "a")
    whole = read_runs([folder])[0].records
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "eval", "st')
    assert (read_runs([folder])[0].records, read_runs([folder])[0].unreadable, caplog.records) == (whole, 0, [])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('\n[1]\n{"kind": "eval", "step": 3}\n')
    with caplog.at_level(logging.WARNING):
        assert read_runs([folder])[0].unreadable == 3
    assert "3 lines" in caplog.text
    assert "3 lines of metrics.jsonl could not be read" in write_report([folder], tmp_path / "r.html").read_text()


def test_losses_are_one_a_step_and_finite(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", losses=(4.0, 3.0))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "eval", "step": 10, "tokens": 4000, "set": "general", "loss": 3.5}\n')
        file.write('{"kind": "eval", "step": 20, "tokens": 8000, "set": "general", "loss": NaN}\n')
    assert read_runs([folder])[0].losses("general") == [(0.0, 5.0), (4000.0, 3.5)]
    assert "1 held-out losses are not finite" in write_report([folder], tmp_path / "r.html").read_text()


def test_labels_are_the_shortest_that_differ(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / place) for place in ("x/dga", "y/dga")]
    assert [run.label for run in read_runs(folders)] == ["x/dga", "y/dga"]
    assert [run.label for run in read_runs([folders[0], folders[0]])] == ["dga (1)", "dga (2)"]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run was given"):
        read_runs([])
    with pytest.raises(UserError, match=r"config\.json is missing"):
        read_runs([tmp_path])
    folder = write_run(tmp_path / "a")
    (write_run(tmp_path / "b", basis=["natural"]) / "weights.parquet").replace(folder / "weights.parquet")
    with pytest.raises(UserError, match=r"a row has 1 weights, config\.json names a basis of 3"):
        read_runs([folder])
    (folder / "weights.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="expected a Parquet file"):
        read_runs([folder])


# --- domains.py


def test_shares_and_epochs_of_the_domains(tmp_path: Path, catalog: Path) -> None:
    run = read_runs([write_run(tmp_path / "a")])[0]
    fine, coarse = read_domains(catalog, None), read_domains(catalog, 2)
    assert (fine.level, fine.corpus_share.tolist()) == (4, [0.1, 0.2, 0.2, 0.5])
    assert [values.tolist() for values in drawn(run, fine)] == [[0.3, 0.1, 0.2, 0.4], [3.0, 0.5, 1.0, 0.5]]
    assert [values.tolist() for values in drawn(run, coarse)] == [[0.4, 0.6], [80 / 60, 120 / 200]]
    assert (coarse.tokens.tolist(), coarse.name(1), fine.name(0, 1)) == ([3000, 7000], "domain 1 (plot, axis)", "domain 0 (tensor)")


def test_the_last_mixture_of_domains(tmp_path: Path, catalog: Path) -> None:
    domains = read_domains(catalog, 4)
    mixed = read_runs([write_run(tmp_path / "a", losses=(3.0,))])[0]  # a third each of goal, natural, uniform
    assert final_mix(mixed, domains) == pytest.approx([1.35 / 3, 0.45 / 3, 0.45 / 3, 0.75 / 3])
    named = read_runs([write_run(tmp_path / "b", losses=(3.0,), basis=["4/2", "4/1"], mixture={"basis": "domains"})])[0]
    assert final_mix(named, domains).tolist() == [0, 0.5, 0.5, 0]
    unknown = read_runs([write_run(tmp_path / "c", basis=["goal", "nobody"])])[0]
    assert final_mix(unknown, domains) is None


def test_a_wrong_catalog_is_refused(tmp_path: Path, catalog: Path) -> None:
    with pytest.raises(UserError, match="expected a finished catalog"):
        read_domains(tmp_path, None)
    with pytest.raises(UserError, match="this catalog has levels"):
        read_domains(catalog, 3)
    small = write_catalog(tmp_path / "small", [10, 10], TERMS, top=2)
    run = read_runs([write_run(tmp_path / "a")])[0]
    with pytest.raises(UserError, match="drew from leaf 3, this catalog has 2 leaves"):
        drawn(run, read_domains(small, None))


# --- charts.py


def test_the_loss_panel_cuts_off_the_first_fall(tmp_path: Path) -> None:
    runs = read_runs([write_run(tmp_path / "a")])
    panel = loss_panel(runs, "target/validation", "T")
    assert panel["series"] == [{"run": 0, "points": [[0, 6], [4000, 4], [8000, 3], [12000, 2.5], [16000, 2.25], [20000, 2]]}]
    assert panel["top"] == pytest.approx(4.1)  # 4.0 and a twentieth of 4.0 - 2.0
    few = read_runs([write_run(tmp_path / "b", losses=(6.0, 4.0))])
    assert loss_panel(few, "target/validation", "T")["top"] is None
    assert loss_panel(few, "nothing", "T") == {"title": "T", "top": None, "series": []}


def test_weights_hold_from_update_to_update(tmp_path: Path) -> None:
    run = read_runs([write_run(tmp_path / "a", losses=(3.0, 2.0, 1.0), basis=["x", "y"])])[0]
    chart = weights_chart(run, [run], None)
    a = np.exp(0.5) / (np.exp(0.5) + 1)
    assert (chart["axis"], chart["starts"], chart["end"], chart["names"], chart["others"]) == (
        "training tokens",
        [0, 4000],
        8000,
        ["x", "y"],
        False,
    )
    assert chart["alpha"][0] == pytest.approx([0.5, a], rel=1e-5)
    assert chart["sampling"][0] == pytest.approx([0.5, 0.25 + 0.5 * a], rel=1e-5)
    assert chart["effective"][0] == 2


def test_small_members_of_a_large_basis_are_summed(tmp_path: Path) -> None:
    run = read_runs([write_run(tmp_path / "a", losses=(3.0,), basis=[f"b{i}" for i in range(10)])])[0]
    chart = weights_chart(run, [run], None)
    assert (chart["names"][-1], len(chart["names"]), chart["sampling"][-1], chart["members"]) == ("3 others", 8, [0.3], 10)


def test_domain_rows_hold_every_number_of_the_table(tmp_path: Path, catalog: Path) -> None:
    runs = read_runs([write_run(tmp_path / "running", usage=None), write_run(tmp_path / "a")])
    found = payload(runs, read_domains(catalog, 4))["domains"]
    assert (found["runs"], found["target"], found["filled"]) == ([1], "goal", 4)
    assert found["rows"][0] == [0, "tensor, layer", 100, 1000, 4, 0.1, 1, [0.3], [3]]
    assert found["rows"][3] == [3, "date", 500, 5000, 1, 0.5, 0, [0.4], [0.5]]


def test_numbers_are_what_json_can_hold() -> None:
    assert plain(np.array([1.0, 0.12345678, np.nan, np.inf])) == [1, 0.123457, None, None]
