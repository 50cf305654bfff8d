"""The experiment page: numbers, text, hostile names and the content security policy."""

import base64
import hashlib
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from data_catalog.errors import UserError
from flows.experiment_results import tables
from flows.pages.experiment import write_experiment_page
from tests.helpers.made_up_results import made_up_result, made_up_results
from tests.helpers.page_text import data_of, words_of

HOSTILE = "</script><img src=x onerror=alert(1)><!-- {{data}} \u202eABC \u05d0 " + "long" * 60
HARMLESS = "harmless"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "frontier" / "experiment.html"


@pytest.fixture(autouse=True)
def folder(out: Path) -> None:
    out.parent.mkdir()


def table_rows(text: str) -> list[list[str]]:
    """Return the text of the cells of all tables on the page, without the table of cost."""
    cells = r"<t[hd]\b[^>]*>(.*?)</t[hd]>"
    return [
        [unescape(re.sub("<[^>]+>", "", cell)) for cell in re.findall(cells, row)]
        for row in re.findall("<tr>.*?</tr>", text.split('id="costs"', maxsplit=1)[0])
    ]


def markdown_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("predicted", [{}, {"dga": -0.1, "averaged": 0.025}])
def test_the_tables_are_those_of_the_markdown_file(out: Path, predicted: dict) -> None:
    results = made_up_results()
    text = write_experiment_page(results, "half", out, predicted).read_text()
    found, expected = table_rows(text), markdown_rows(tables(results, "half", predicted))
    assert len(expected) == 5 * 8  # four settings and a last table of seven variants
    assert sorted(found) == sorted(expected)
    assert ("predicted" in found[0]) == bool(predicted)
    if predicted:
        assert found[5][:3] == ["dga", "-0.0998 ± 0.0000", "-0.1000"]


def test_the_charts_show_means_and_their_frontier(out: Path) -> None:
    results = made_up_results(targets=["law"], epochs=[4.0])
    data = data_of(write_experiment_page(results, "half", out))
    assert [(v["name"], v["role"]) for v in data["variants"]] == [
        *(("dga", "learned"), ("averaged", "control"), ("shuffled", "control")),
        *(("natural", "fixed"), ("half", "fixed"), ("worse", "fixed"), ("importance", "fixed")),
    ]
    assert len({(v["colour"], v["path"]) for v in data["variants"]}) == 7
    [panel] = data["settings"]
    assert (panel["target"], panel["epochs"], data["baseline"]) == ("law", "4", 4)
    points = {point[0]: point[1:] for point in panel["points"]}
    assert points[3][:4] == [1.001, 0.00057735, 2.001, 0.00057735]
    assert points[3][4][:2] == ["2.0010 ± 0.0006", "+0.5000 ± 0.0000"]
    assert panel["frontier"] == [[1.001, 2.001], [1.201, 1.501], [1.601, 1.401]]


def test_the_size_of_the_experiment_and_its_findings(out: Path) -> None:
    words = words_of(write_experiment_page(made_up_results(), "half", out))
    assert "Experiment frontier" in words
    for sentence in (
        "84 runs of 7 variants, with 2 targets (law and code), 2 repetitions (4 and 16 epochs) and "
        "3 seeds (0, 1 and 2).",
        "a model of 100k parameters on 200k to 250k tokens",
        "2 to 2.5 tokens per parameter",
        "importance has the lowest mean loss on the targets, 0.1000 ± 0.0000 bits per byte lower "
        "than that of half.",
        "The learned mixture dga has a mean gap to the frontier of the fixed mixtures of -0.07",
        "Its mean loss on the targets is 0.0998 ± 0.0000 lower than that of half. No fixed mixture "
        "dominates it.",
        "dga 12 100 200k 40.0 480 20%",
        "all runs 84 100 236k 40.0 3,360 5.7%",
    ):
        assert sentence in words, sentence


def test_no_variant_is_better_than_the_baseline(out: Path) -> None:
    page = write_experiment_page(made_up_results(epochs=[None]), "importance", out)
    assert "No variant has a lower mean loss on the targets than importance." in words_of(page)
    assert "repetition (" not in words_of(page)


def test_the_limits_of_a_comparison_are_named(out: Path) -> None:
    learned = made_up_results(variants=["dga", "averaged"], seeds=[0])[:-1]
    words = words_of(write_experiment_page(learned, "half", out))
    for sentence in (
        "1 of 8 combinations of variant, target, repetition and seed have no result.",
        "There is a single seed.",
        "The baseline half has no results.",
        "There is no fixed mixture, and therefore no frontier.",
    ):
        assert sentence in words
    complete = words_of(write_experiment_page(made_up_results(), "half", out))
    assert "have no result" not in complete
    assert "single seed" not in complete


def test_a_page_without_results_is_refused(out: Path) -> None:
    with pytest.raises(UserError, match="no results"):
        write_experiment_page([], "half", out)
    assert not out.exists()


def test_hostile_names_stay_text(out: Path) -> None:
    counts = []
    for words in (HOSTILE, HARMLESS):
        results = [
            replace(made_up_result(variant, target=words, name=f"{words}{variant}"), mixer=mixer)
            for variant, mixer in (("dga", words), ("half", "static"), ("natural", "natural"))
        ]
        page = write_experiment_page(results, f"{words}half", out, {f"{words}dga": 0.1})
        text = page.read_text()
        counts.append([text.count(tag) for tag in ("<script", "</script", "<img", "<!--", "<bdi>")])
        assert data_of(page)["variants"][0]["name"] == f"{words}dga"
    assert counts[0] == counts[1]


def test_the_policy_allows_exactly_the_inlined_scripts_and_style(out: Path) -> None:
    text = write_experiment_page(made_up_results(), "half", out).read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    inlined = re.findall(r"<style>(.*?)</style>", text, re.S) + re.findall(
        r"<script>(.*?)</script>", text, re.S
    )
    assert policy.startswith("default-src 'none'; ")
    assert "connect-src" not in policy
    assert re.findall(r"sha256-([^']*)", policy) == [
        base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in inlined
    ]
    assert not re.search(r"""(?:src|href)=["']?(?!data:|#)[a-z]*:?//""", text)


def test_twenty_variants_have_different_marks(out: Path) -> None:
    results = [made_up_result("half", name=f"fixed-{i}") for i in range(20)]
    found = data_of(write_experiment_page(results, "fixed-0", out))["variants"]
    assert len({(v["colour"], v["path"]) for v in found}) == 20
