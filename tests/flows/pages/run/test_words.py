"""Sentences and tables of the run page."""

import json
import re
from pathlib import Path

import pytest

from flows.pages.run import write_report
from tests.helpers.manifests import change_manifest, write_manifest
from tests.helpers.page_text import words_of
from tests.helpers.tiny_run import add_records, change_config, write_catalog, write_run

TERMS = [["tensor", "layer"], ["socket"], ["plot", "axis"], ["date"]]
HOSTILE = (
    "</script><img src=x onerror=alert(1)><!-- {{data}} \u202eABC \u05d0\u05d1 " + "long" * 100
)


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return write_catalog(tmp_path / "catalog", [1000, 2000, 2000, 5000], TERMS)


def test_the_summary_names_the_run_with_the_lowest_loss(tmp_path: Path, catalog: Path) -> None:
    folders = [
        write_run(tmp_path / "plain", mixer="natural", basis=["natural"], losses=(6.0, 2.5)),
        write_run(tmp_path / "dga", losses=(6.0, 2.0)),
    ]
    add_records(
        folders[1],
        {
            "kind": "eval",
            "step": 10,
            "tokens": 4000,
            "set": "target/test",
            "loss": 2.125,
            "error": 0.25,
        },
    )
    text = words_of(write_report(folders, tmp_path / "r.html", catalog))
    assert (
        "dga (mixer dga) has the lowest loss, 2.125 ± 0.250 nats per token on test text of the "
        "target goal after 4,000 tokens" in text
    )
    assert "0.500 (19.0%) lower than plain." in text


def test_the_page_describes_the_final_mixtures(tmp_path: Path, catalog: Path) -> None:
    folders = [
        write_run(tmp_path / "plain", mixer="natural", basis=["natural"], losses=(6.0, 2.5)),
        write_run(tmp_path / "dga", losses=(6.0, 2.0)),
    ]
    (folders[1] / "weights.json").write_text(
        json.dumps({"goal": 0.75, "natural": 0.25, "uniform": 0.0})
    )
    text = words_of(write_report(folders, tmp_path / "r.html", catalog))
    assert "Fixed mixture: natural. The effective number of domains is 3.4 of 4." in text
    assert (
        "The mixture overlaps 10% with the documents of the target, and 100% with the corpus."
        in text
    )
    assert (
        "Final weights: 33% goal, 33% natural, 33% uniform. The effective number of members is "
        "3.0 of 3." in text
    )
    assert "(weights.json): 75% goal, 25% natural." in text
    assert "domain 0 tensor, layer 45.0% 4.5× 74% goal, 19% uniform" in text


def test_runs_with_equal_losses_share_the_lowest_loss(tmp_path: Path) -> None:
    text = words_of(
        write_report([write_run(tmp_path / "a"), write_run(tmp_path / "b")], tmp_path / "r.html")
    )
    assert "a (mixer dga) and b share the lowest loss, 2.125 nats per token" in text


def test_many_runs_have_a_short_title_and_a_table_of_seeds(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"run-{seed}", losses=(6.0, 2.0 + seed)) for seed in range(5)]
    for seed, folder in enumerate(folders):
        change_config(folder, config={"seed": seed})
    page = write_report(folders, tmp_path / "r.html")
    assert (
        re.search("<title>(.*?)</title>", page.read_text())[1]
        == "5 runs: run-0, run-1, run-2, run-3, …"
    )
    assert "dga goal 5 4.000 ± 0.707 4.125 ± 0.707 5.000 ± 0.707" in words_of(page)


def test_notes_limit_a_comparison(tmp_path: Path, catalog: Path) -> None:
    folders = [
        write_run(tmp_path / "a", usage=None, catalog=catalog),
        write_run(tmp_path / "b", losses=(3.0, 2.0), target="other"),
    ]
    change_config(folders[0], config={"training": {"steps": 200}})
    text = words_of(write_report(folders, tmp_path / "r.html"))
    assert "(step 50 of 200, 25%)" in text
    assert "estimated from the weights" in text
    assert "(4,000 to 20k tokens)" in text
    assert "different targets" in text
    change_manifest(catalog, fingerprint="dead")
    assert "fingerprints differ" in words_of(write_report(folders, tmp_path / "r.html"))


def test_the_version_that_a_run_was_trained_on_is_shown(tmp_path: Path, catalog: Path) -> None:
    newer = catalog / "versions" / "0002"
    write_catalog(tmp_path / "other", [1000, 2000, 2000, 5000], [["newer"]] * 4)
    (tmp_path / "other" / "versions" / "0001").rename(newer)
    for version, fingerprint in ((1, "feed"), (2, "beef")):
        for folder in (catalog, catalog / "versions" / f"{version:04d}"):
            write_manifest(folder, version=version, fingerprint=fingerprint)
    folder = write_run(tmp_path / "a")
    text = words_of(write_report([folder], tmp_path / "r.html", catalog))
    assert "tensor, layer" in text
    assert "fingerprints differ" not in text
    change_config(folder, catalog="beef")
    assert "tensor, layer" not in words_of(write_report([folder], tmp_path / "r.html", catalog))


def test_changes_faults_and_accuracies_are_shown(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", mixture={"update_every_steps": 10, "overhead_budget": 0.05})
    change_config(
        folder,
        cadence={"update_every_steps": 40, "basis_sequences": 8, "target_sequences": 32},
        history=[
            {
                "when": "2026-11-22T08:00:00+00:00",
                "step": 30,
                "what": "config",
                "old": {"seed": 0},
                "new": {"seed": "<b>"},
            },
            {
                "when": "2026-11-22T09:00:00+00:00",
                "step": None,
                "what": "catalog",
                "old": "feed",
                "new": "beef",
            },
        ],
    )
    fault = {
        "step": 20,
        "cause": "loss",
        "loss": None,
        "sequences": [{"number": 81, "leaf": 3, "row": 5, "nats": None}],
    }
    (folder / "fault.json").write_text(json.dumps(fault))
    row = {"questions": 40, "chance": 0.25, "acc": 0.325, "acc_stderr": 0.0125}
    (folder / "accuracy.json").write_text(json.dumps({"tasks": {"mmlu": row}}))
    text = words_of(write_report([folder], tmp_path / "r.html"))
    assert "budget of 5.0%: update_every_steps 10 → 40." in text
    assert (
        "at step 30 (2026-11-22T08:00:00+00:00) the run resumed with a changed config, as "
        "accepted by the user: seed 0 → &lt;b&gt;." in text
    )
    assert (
        "before its first checkpoint (2026-11-22T09:00:00+00:00) the run resumed with a changed "
        "catalog, as accepted by the user: feed → beef." in text
    )
    assert (
        "at step 20 the run stopped because the loss was not finite in 1 sequence (leaf 3). See "
        "fault.json. The run has resumed since." in text
    )
    assert "mmlu 40 25.0% 32.5% ± 1.2%" in text
