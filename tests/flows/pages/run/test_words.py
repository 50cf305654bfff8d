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


def final_loss(loss: float, error: float | None, held_out: str = "target/test") -> dict:
    record = {"kind": "eval", "step": 10, "tokens": 4000, "set": held_out, "loss": loss}
    return record if error is None else record | {"error": error}


@pytest.mark.parametrize(
    ("error", "verdict", "style"),
    [
        (0.1, "The difference is larger than 2 standard errors.", "better"),
        (0.3, "The difference is within 2 standard errors, so it may be chance.", "unclear"),
    ],
)
def test_the_gain_over_the_natural_mixture_comes_first_with_its_error(
    tmp_path: Path, catalog: Path, error: float, verdict: str, style: str
) -> None:
    folders = [
        write_run(tmp_path / "half", losses=(6.0, 2.25)),
        write_run(tmp_path / "plain", mixer="natural", basis=["natural"], losses=(6.0, 2.5)),
        write_run(tmp_path / "dga", losses=(6.0, 2.0)),
    ]
    add_records(folders[0], final_loss(2.625, error))
    add_records(folders[1], final_loss(2.5, 4 / 3 * error))
    add_records(folders[2], final_loss(2.0, error))
    page = write_report(folders, tmp_path / "r.html", catalog)
    text = words_of(page)
    assert (
        f"dga is 0.500 ± {5 / 3 * error:.3f} nats per token (20.0%) lower than plain (mixer "
        "natural) on test text of the target goal (2.000 against 2.500). "
        f"{verdict} The error treats the two losses as independent" in text
    )
    assert "half (mixer dga) is 0.125 ±" in text
    assert "(5.0%) higher than plain" in text
    assert f'<strong class="{style}">0.500' in page.read_text()


def test_repeated_runs_are_compared_in_pairs_of_the_same_seed(tmp_path: Path) -> None:
    folders = []
    for seed, (natural, dga) in enumerate([(3.0, 2.0), (5.0, 4.5), (7.0, 6.25)]):
        for mixer, loss in (("natural", natural), ("dga", dga)):
            folders.append(write_run(tmp_path / f"{mixer}-{seed}", mixer=mixer, losses=(9.0, loss)))
            change_config(folders[-1], config={"seed": seed})
            add_records(folders[-1], final_loss(loss, 1.0))
    text = words_of(write_report(folders, tmp_path / "r.html"))
    assert "is 0.750 ± 0.144 nats per token (15.0%) lower than natural-" in text
    assert "It is the mean of 3 pairs of runs with the same seed." in text


def test_without_a_natural_run_the_best_two_are_compared(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"dga-{loss}", losses=(6.0, loss)) for loss in (4, 2, 3)]
    text = words_of(write_report(folders, tmp_path / "r.html"))
    assert "dga-2 is 1.000 nats per token (32.0%) lower than dga-3 on test text" in text
    assert "The error of the difference is unknown." in text
    assert "dga-4 is" not in text


def test_a_single_run_has_its_first_and_last_loss_and_the_command_to_compare(
    tmp_path: Path,
) -> None:
    run = write_run(tmp_path / "a run")
    text = words_of(write_report([run], tmp_path / "r.html"))
    assert (
        "a run (mixer dga) goes from 6.000 to 2.000 nats per token on validation text of the "
        "target goal after 20k tokens. On its test text the loss is 2.125." in text
    )
    assert f"clustermix report &#x27;{run}&#x27; OTHER_RUN" in text


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
    assert (
        "tensor, layer domain 0 10.0% 10.0%1.0× corpus 45.0%4.5× corpus74% goal, 19% uniform"
        in text
    )
    html = (tmp_path / "r.html").read_text()
    widths = re.findall(r'class="part (\w+)".*?width="([\d.]+)"', html)
    assert widths[:2] == [("rest", "80.0"), ("k0", "80.0")]  # 50%, the largest share of all
    assert widths[3:6] == [("rest", "16.0"), ("k0", "16.0"), ("k1", "72.0")]


def test_runs_with_equal_losses_are_said_to_have_the_same(tmp_path: Path) -> None:
    text = words_of(
        write_report([write_run(tmp_path / "a"), write_run(tmp_path / "b")], tmp_path / "r.html")
    )
    assert "a (mixer dga) has the same loss as b (mixer dga) on test text" in text


def test_many_runs_have_a_short_title_and_a_table_of_seeds(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"run-{seed}", losses=(6.0, 2.0 + seed)) for seed in range(5)]
    for seed, folder in enumerate(folders):
        change_config(folder, config={"seed": seed})
    page = write_report(folders, tmp_path / "r.html")
    assert (
        re.search("<title>(.*?)</title>", page.read_text())[1]
        == "Five runs for target goal on catalog nowhere"
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
