"""Numbers of the run page from tiny runs."""

import logging
import math
import re
from pathlib import Path

import pytest

from data_catalog.errors import UserError
from flows.pages.run import summary_table, write_report
from flows.pages.run.data import read_runs
from flows.pages.run.domains import read_domains
from flows.pages.run.mixture import drawn_domains, led_by, member_label, mixed
from flows.pages.run.run_folder import RunFolder
from flows.pages.run.summary import seed_groups
from tests.helpers.tiny_run import add_records, change_config, write_catalog, write_run

TERMS = [["tensor", "layer"], ["socket"], ["plot", "axis"], ["date"]]


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return write_catalog(tmp_path / "catalog", [1000, 2000, 2000, 5000], TERMS)


def read(folder: Path) -> RunFolder:
    return read_runs([folder])[0]


# --- data.py, summary.py


def test_the_summary_has_the_last_numbers_of_a_run(tmp_path: Path) -> None:
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


def test_the_summary_of_an_unfinished_run(tmp_path: Path) -> None:
    row = summary_table([write_run(tmp_path / "a", usage=None)])[0]
    assert (
        row["finished"],
        row["steps"],
        row["tokens"],
        row["target_test_loss"],
        row["repeats"],
    ) == (False, 50, 20_000, None, None)


def test_repeats_come_from_usage_if_the_last_record_is_missing(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(line for line in lines if '"final"' not in line))
    assert summary_table([folder])[0]["repeats"] == pytest.approx(
        200 / 160
    )  # 60 + 20 + 40 + 80 drawn, 20 + 20 + 40 + 80 distinct


def test_an_incomplete_last_line_is_ignored_and_invalid_lines_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_run(tmp_path / "a")
    whole = read(folder).records
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "eval", "st')
    assert (read(folder).records, read(folder).damage, caplog.records) == (whole, (), [])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(
            '\n[1]\n{"kind": "eval", "step": 3}\n'
            '{"kind": "train", "step": "x", "tokens": 1, "seconds": 1}\n'
        )
    with caplog.at_level(logging.WARNING):
        assert read(folder).damage == (
            "4 lines of metrics.jsonl could not be read and are not shown",
        )
    assert "4 lines" in caplog.text


def test_losses_are_finite_and_one_per_step(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", losses=(4.0, 3.0))
    add_records(
        folder,
        {
            "kind": "eval",
            "step": 10,
            "tokens": 4000,
            "set": "general",
            "loss": 3.5,
            "error": 0.25,
            "bits_per_byte": 1.5,
        },
    )
    add_records(
        folder, {"kind": "eval", "step": 20, "tokens": 8000, "set": "general", "loss": None}
    )  # null stands for NaN
    assert read(folder).losses("general") == [
        (0, 0.0, 5.0, None, None, None, None),  # from an older version
        (10, 4000.0, 3.5, 0.25, 1.5, None, None),
    ]
    assert (
        "1 held-out losses are not finite"
        in write_report([folder], tmp_path / "r.html").read_text()
    )


def test_labels_are_the_shortest_distinct_paths(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / place) for place in ("x/dga", "y/dga")]
    assert [run.label for run in read_runs(folders)] == ["x/dga", "y/dga"]
    assert [run.label for run in read_runs([folders[0], folders[0]])] == ["dga (1)", "dga (2)"]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^runs:"):
        read_runs([])
    with pytest.raises(UserError, match=r"config\.json"):
        read_runs([tmp_path])
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match=r"config\.json: "):
        read_runs([tmp_path])


def test_runs_that_differ_only_in_seed_are_grouped(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / f"{mixer}-{seed}", mixer=mixer, losses=(6.0, 2.0 + seed))
        for mixer in ("dga", "odm")
        for seed in (0, 1)
    ]
    for i, folder in enumerate(folders):
        change_config(folder, config={"seed": i % 2})
    other = write_run(tmp_path / "other", losses=(6.0, 9.0))
    change_config(other, config={"seed": 2, "optimizer": {"learning_rate": 1.0}})
    groups = seed_groups(read_runs([*folders, other, folders[0]]))
    assert [(group.mixer, group.labels) for group in groups] == [
        ("dga", ("dga-0 (6)", "dga-1 (2)")),
        ("odm", ("odm-0 (3)", "odm-1 (4)")),
    ]
    assert groups[0].means["target_test_loss"] == (
        2.625,
        pytest.approx(math.sqrt(0.5) / math.sqrt(2)),
    )


# --- mixture.py, domains.py


def test_sampled_shares_epochs_and_unseen_tokens_of_domains(tmp_path: Path, catalog: Path) -> None:
    run = read(write_run(tmp_path / "a"))
    coarser = write_run(tmp_path / "b", level=2)
    fine, coarse = read_domains(catalog, [run]), read_domains(catalog, [run, read(coarser)])
    assert (fine.level, fine.corpus_share.tolist()) == (4, [0.1, 0.2, 0.2, 0.5])
    of_fine, of_coarse = drawn_domains(run, fine), drawn_domains(run, coarse)
    assert [of_fine.share.tolist(), of_fine.epochs.tolist()] == [
        [0.3, 0.1, 0.2, 0.4],
        [3.0, 0.5, 1.0, 0.5],
    ]
    assert (of_fine.unseen.tolist(), of_fine.expected) == (
        [0, 2000, 0, 8000],
        False,
    )  # sequences of 100 tokens
    assert [of_coarse.share.tolist(), of_coarse.epochs.tolist()] == [
        [0.4, 0.6],
        [80 / 60, 120 / 200],
    ]
    assert (coarse.tokens.tolist(), coarse.name(1), fine.name(0, 1)) == (
        [3000, 7000],
        "domain 1 (plot, axis)",
        "domain 0 (tensor)",
    )


def test_an_unfinished_run_is_estimated_from_its_weights(tmp_path: Path, catalog: Path) -> None:
    run = read(
        write_run(
            tmp_path / "a", usage=None, mixer="natural", basis=["natural"], losses=(6.0, 5.0, 4.0)
        )
    )
    found = drawn_domains(run, read_domains(catalog, [run]))
    assert (found.expected, found.share.tolist()) == (True, [0.1, 0.2, 0.2, 0.5])
    assert found.epochs.tolist() == pytest.approx(
        [0.8] * 4
    )  # 20 steps of 4 sequences of 100 tokens, of 10,000
    assert found.unseen.tolist() == pytest.approx([200, 400, 400, 1000])
    change_config(run.folder, config={"data": {"tokens_per_domain": 500}})
    scarce = drawn_domains(read(run.folder), read_domains(catalog, [run]))
    assert scarce.epochs.tolist() == pytest.approx([1.6, 3.2, 3.2, 8.0])


def test_a_mixture_of_members_gives_shares_of_domains(tmp_path: Path, catalog: Path) -> None:
    run = read(write_run(tmp_path / "a", losses=(3.0,)))  # a third each of goal, natural, uniform
    domains = read_domains(catalog, [run])
    assert mixed(run, run.weights.sampling, domains)[0] == pytest.approx(
        [1.35 / 3, 0.45 / 3, 0.45 / 3, 0.75 / 3]
    )
    assert led_by(run, 0, domains) == pytest.approx([1 / 1.35, 0.1 / 1.35, 0.25 / 1.35])
    named = read(
        write_run(tmp_path / "b", losses=(3.0,), basis=["2", "1"], mixture={"basis": "domains"})
    )
    assert mixed(named, named.weights.sampling, domains).tolist() == [[0, 0.5, 0.5, 0]]
    assert member_label(named, 0, domains) == "domain 2 (plot, axis)"
    coarse = read_domains(catalog, [read(write_run(tmp_path / "c", level=2))])
    assert mixed(named, named.weights.sampling, coarse).tolist() == [[0.5, 0.5]]
    assert member_label(named, 0, coarse) == "domain 2"
    unknown = read(write_run(tmp_path / "d", basis=["goal", "nobody"]))
    assert mixed(unknown, unknown.weights.sampling, domains) is None


def test_an_unsuitable_catalog_is_refused(tmp_path: Path, catalog: Path) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        read_domains(tmp_path, [])
    with pytest.raises(UserError, match=r"level.* 3"):
        read_domains(catalog, [read(write_run(tmp_path / "a", level=3))])
    place = catalog / "versions" / "0001" / "domains.parquet"
    place.rename(tmp_path / "elsewhere.parquet")
    place.symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(UserError, match=r"domains\.parquet: is outside"):
        read_domains(catalog, [])
