"""The report as a page: its words, hostile text, damaged files, and what it may load."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.errors import UserError
from flows.pages.run import summary_table, write_report
from flows.pages.shared.markup import escape_html, percent, script_json, short_number
from tests.flows.pages.run.test_data import add, change
from tests.helpers.manifests import change_manifest, write_manifest
from tests.helpers.tiny_run import write_catalog, write_run

TERMS = [["tensor", "layer"], ["socket"], ["plot", "axis"], ["date"]]
HOSTILE = (
    "</script><img src=x onerror=alert(1)><!-- {{data}} \u202eABC \u05d0\u05d1 " + "long" * 100
)


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return write_catalog(tmp_path / "catalog", [1000, 2000, 2000, 5000], TERMS)


def data_of(page: Path) -> dict[str, Any]:
    return json.loads(
        re.search(
            r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S
        )[1]
    )


def words_of(page: Path) -> str:
    """The page's text, its scripts left out."""
    body = re.sub(r"<(script|style)\b.*?</\1>", "", page.read_text(), flags=re.S)
    return re.sub(r"<[^>]+>", "", re.sub(r"</(td|th|p|li|summary)>", " ", body))


# --- words


def test_the_page_says_who_is_best(tmp_path: Path, catalog: Path) -> None:
    folders = [
        write_run(tmp_path / "plain", mixer="natural", basis=["natural"], losses=(6.0, 2.5)),
        write_run(tmp_path / "dga", losses=(6.0, 2.0)),
    ]
    add(
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
        "dga (mixer dga) has the lowest loss, 2.125 ± 0.250 nats per token on the test text of the target goal after 4,000 tokens"
        in text
    )
    assert "0.500 (19.0%) below the next, plain." in text


def test_the_page_says_what_was_chosen_and_where_it_leads(tmp_path: Path, catalog: Path) -> None:
    folders = [
        write_run(tmp_path / "plain", mixer="natural", basis=["natural"], losses=(6.0, 2.5)),
        write_run(tmp_path / "dga", losses=(6.0, 2.0)),
    ]
    (folders[1] / "weights.json").write_text(
        json.dumps({"goal": 0.75, "natural": 0.25, "uniform": 0.0})
    )
    text = words_of(write_report(folders, tmp_path / "r.html", catalog))
    assert (
        "It drew from one fixed mixture, natural. Of 4 domains this is spread over 3.4 (effective number)."
        in text
    )
    assert (
        "It shares 10% of its weight with the target's own documents, 100% with the corpus as it is."
        in text
    )
    assert (
        "It ended with 33% goal, 33% natural, 33% uniform (effective number 3.0 of 3 members)."
        in text
    )
    assert "hands on its average over the run (weights.json): 75% goal, 25% natural." in text
    assert "domain 0 tensor, layer 45.0% 4.5× 74% goal, 19% uniform" in text


def test_equal_runs_are_called_equal(tmp_path: Path) -> None:
    text = words_of(
        write_report([write_run(tmp_path / "a"), write_run(tmp_path / "b")], tmp_path / "r.html")
    )
    assert "a (mixer dga) and b have the same lowest loss, 2.125 nats per token" in text


def test_many_runs_have_a_short_title_and_their_seeds_a_table(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"run-{seed}", losses=(6.0, 2.0 + seed)) for seed in range(5)]
    for seed, folder in enumerate(folders):
        change(folder, config={"seed": seed})
    page = write_report(folders, tmp_path / "r.html")
    assert (
        re.search("<title>(.*?)</title>", page.read_text())[1]
        == "5 runs: run-0, run-1, run-2, run-3, …"
    )
    assert "dga goal 5 4.000 ± 0.707 4.125 ± 0.707 5.000 ± 0.707" in words_of(page)


def test_notes_name_what_makes_a_comparison_unfair(tmp_path: Path, catalog: Path) -> None:
    folders = [
        write_run(tmp_path / "a", usage=None, catalog=catalog),
        write_run(tmp_path / "b", losses=(3.0, 2.0), target="other"),
    ]
    change(folders[0], config={"training": {"steps": 200}})
    text = words_of(write_report(folders, tmp_path / "r.html"))
    assert "a has not finished (step 50 of 200, 25%)" in text
    assert "a: what was drawn of each domain is reckoned from the weights" in text
    assert "different amounts of text (4,000 to 20k tokens)" in text
    assert "different targets" in text
    change_manifest(catalog, fingerprint="dead")
    assert "its fingerprint differs" in words_of(write_report(folders, tmp_path / "r.html"))


def test_the_version_that_a_run_drew_from_is_shown(tmp_path: Path, catalog: Path) -> None:
    newer = catalog / "versions" / "0002"
    write_catalog(tmp_path / "other", [1000, 2000, 2000, 5000], [["newer"]] * 4)
    (tmp_path / "other" / "versions" / "0001").rename(newer)
    for version, fingerprint in ((1, "feed"), (2, "beef")):
        for folder in (catalog, catalog / "versions" / f"{version:04d}"):
            write_manifest(folder, version=version, fingerprint=fingerprint)
    folder = write_run(tmp_path / "a")
    text = words_of(write_report([folder], tmp_path / "r.html", catalog))
    assert "tensor, layer" in text
    assert "fingerprint differs" not in text
    change(folder, catalog="beef")
    assert "tensor, layer" not in words_of(write_report([folder], tmp_path / "r.html", catalog))


def test_changes_faults_and_accuracies_are_told(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", mixture={"update_every_steps": 10, "overhead_budget": 0.05})
    change(
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
    assert (
        "to measure at a cost of at most 5.0%, its cadence was changed: update_every_steps 10 → 40."
        in text
    )
    assert (
        "at step 30 (2026-11-22T08:00:00+00:00) it went on with another config, which was accepted: seed 0 → &lt;b&gt;."
        in text
    )
    assert (
        "before its first checkpoint (2026-11-22T09:00:00+00:00) it went on with another catalog, which was accepted: feed → beef."
        in text
    )
    assert (
        "at step 20 it stopped: the loss was not finite in 1 sequence (leaf 3); see fault.json. It has gone on since."
        in text
    )
    assert "mmlu 40 25.0% 32.5% ± 1.2%" in text


# --- files that are not there, damaged, or hostile


@pytest.mark.parametrize("losses", [(), (3.0,), (6.0, 4.0, 3.0, 2.5, 2.25, 2.0)])
@pytest.mark.parametrize("with_catalog", [False, True])
def test_a_run_under_way_has_a_page(
    tmp_path: Path, catalog: Path, losses: tuple[float, ...], with_catalog: bool
) -> None:
    folder = write_run(tmp_path / "a", usage=None, losses=losses)
    data = data_of(write_report([folder], tmp_path / "r.html", catalog if with_catalog else None))
    assert (len(data["weights"]), data["domains"] is not None) == (1, with_catalog)
    for name in ("weights.parquet", "metrics.jsonl"):  # before the first update, the first record
        (folder / name).unlink()
        assert "It has not written any weights yet" in words_of(
            write_report([folder], tmp_path / "r.html")
        )


FILES = (
    "metrics.jsonl",
    "weights.parquet",
    "usage.parquet",
    "weights.json",
    "accuracy.json",
    "fault.json",
)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00garbage\n", b'{"config": 3', b"[" * 100_000, b"PAR1"]
)
def test_a_damaged_file_is_told_and_costs_no_more_than_itself(
    tmp_path: Path, catalog: Path, name: str, content: bytes
) -> None:
    damaged, whole = write_run(tmp_path / "damaged"), write_run(tmp_path / "whole")
    (damaged / name).write_bytes(content)
    page = write_report([damaged, whole], tmp_path / "r.html", catalog)
    if not (
        name == "metrics.jsonl" and b"\n" not in content
    ):  # a last line that is still being written is no damage
        assert re.search(
            rf"damaged: [^.]*{re.escape(name)} (could not|and)|damaged: \d lines? of {name} could not",
            words_of(page),
        )
    assert [row["run"] for row in summary_table([damaged, whole])] == ["damaged", "whole"]
    assert "whole (mixer dga)" in words_of(page) or "and whole have the same" in words_of(page)
    assert data_of(page)["domains"]["runs"][-1] == 1


def test_tables_that_do_not_fit_are_told(tmp_path: Path, catalog: Path) -> None:
    folder = write_run(tmp_path / "a")
    (write_run(tmp_path / "b", basis=["natural"]) / "weights.parquet").replace(
        folder / "weights.parquet"
    )
    assert "a row has 1 weights, config.json names a basis of 3" in words_of(
        write_report([folder], tmp_path / "r.html")
    )
    pq.write_table(
        pa.table({"first_sequence": [0], "alpha": [[1.0] * 3], "sampling": [[float("nan")] * 3]}),
        folder / "weights.parquet",
    )
    assert "weights.parquet is left out" in words_of(write_report([folder], tmp_path / "r.html"))
    pq.write_table(
        pa.table({"leaf": [0], "drawn_sequences": [-1], "sequences": [1]}), folder / "usage.parquet"
    )
    assert "usage.parquet is left out" in words_of(
        write_report([folder], tmp_path / "r.html", catalog)
    )
    pq.write_table(
        pa.table({"leaf": [9], "drawn_sequences": [1], "sequences": [1]}), folder / "usage.parquet"
    )
    assert "a drew from leaf 9, this catalog has 4 leaves" in words_of(
        write_report([folder], tmp_path / "r.html", catalog)
    )


def test_a_damaged_catalog_is_refused_if_it_was_asked_for_and_told_if_not(
    tmp_path: Path, catalog: Path
) -> None:
    folder = write_run(tmp_path / "a", catalog=catalog)
    (catalog / "versions" / "0001" / "domains.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="expected a finished catalog"):
        write_report([folder], tmp_path / "r.html", catalog)
    assert "Nothing is said about domains" in words_of(write_report([folder], tmp_path / "r.html"))


def test_text_from_data_cannot_leave_its_place(tmp_path: Path) -> None:
    hostile = write_catalog(tmp_path / "c", [1000, 2000, 2000, 5000], [[HOSTILE]] * 4)
    basis = [HOSTILE, "natural\x00"]
    run = write_run(tmp_path / "{{data}}<b>", basis=basis, target=HOSTILE, mixer="<i>dga")
    add(
        run,
        {"kind": "eval", "step": 50, "tokens": 20_000, "set": HOSTILE, "loss": 1.0, "error": 0.1},
    )
    accepted = {"what": HOSTILE, "old": HOSTILE, "new": {HOSTILE: HOSTILE}}
    change(run, history=[{"when": HOSTILE, "step": 1, **accepted}])
    (run / "fault.json").write_text(
        json.dumps({"step": 1, "cause": HOSTILE, "sequences": [{"leaf": HOSTILE}]})
    )
    (run / "accuracy.json").write_text(json.dumps({"tasks": {HOSTILE: {"acc": 0.5}}}))
    page = write_report([run], tmp_path / "r.html", hostile)
    text = page.read_text()
    assert text.count("</script>") == text.count("<script>") + 1  # and the data
    for never in ("<img", "<i>", "<b>", "\x00"):
        assert never not in text
    assert data_of(page)["weights"][0]["names"] == basis
    assert data_of(page)["runs"][0]["label"] == "{{data}}<b>"


def test_escape_and_embed() -> None:
    assert escape_html('<a b="\x01">&') == "&lt;a b=&quot;\ufffd&quot;&gt;&amp;"
    assert script_json({"k": "</script>\u2028"}) == '{"k":"\\u003c/script>\\u2028"}'
    assert [short_number(v) for v in (None, 999, 1234.5, 20_000, 12_300_000, 0.01234)] == [
        "–",
        "999",
        "1,234",
        "20k",
        "12.3M",
        "0.0123",
    ]
    assert [percent(v) for v in (0.0, 0.0001, 0.012, 0.5)] == [
        "0%",
        "less than 0.1%",
        "1.2%",
        "50%",
    ]


def test_the_policy_allows_exactly_what_is_inlined(tmp_path: Path) -> None:
    text = write_report([write_run(tmp_path / "a")], tmp_path / "r.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    inlined = re.findall(r"<style>(.*?)</style>", text, re.S) + re.findall(
        r"<script>(.*?)</script>", text, re.S
    )
    found = [
        f"sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}"
        for part in inlined
    ]
    assert policy.startswith("default-src 'none'; ")
    assert "connect-src" not in policy
    assert re.findall(r"sha256-[^']*", policy) == found
    assert not re.search(r"""(?:src|href)=["']?(?!data:)[a-z]*:?//""", text)
