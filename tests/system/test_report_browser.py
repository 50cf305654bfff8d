"""The run page in a real browser: all kinds of records, hostile text, and user input."""

import re
from pathlib import Path
from typing import Any

import pytest

from flows.pages.run import write_report
from tests.helpers.browser import contrast, elements, needs_browser, opened, settle, text, unnamed
from tests.helpers.tiny_run import add_records, change_config, write_catalog, write_run
from tests.system.test_catalog_page_browser import HARMLESS, HOSTILE

pytestmark = needs_browser
TERMS = [["tensor", "layer"], ["socket"], ["plot", "axis"], ["date"]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A catalog and a real run on it with scores, standard errors, bounds and fine-tuning."""
    import torch

    from tests.helpers.tiny_catalog import write_tiny_catalog
    from tests.helpers.tiny_training import tiny_config
    from trainer.loop import train

    folder = tmp_path_factory.mktemp("trained")
    catalog = write_tiny_catalog(folder / "catalog")
    changed = {
        "mixture": {"backend": "ghost", "scores": "normalised"},
        "data": {"max_epochs": 2},
        "finetune": {"steps": 6, "batch_sequences": 4},
        "evaluation": {"every_steps": 7, "sequences": 16},
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # faster for a tiny model on a busy machine
    train(tiny_config(catalog, folder / "dga", **changed))
    torch.set_num_threads(threads)
    return catalog, folder / "dga"


def shown(tab: Any) -> str:
    """Return the text of the page after checking that it has no invalid numbers."""
    found = tab.evaluate(
        "[...document.querySelectorAll('main, main svg text')]"
        ".map((node) => node.textContent).join(' ')"
    )
    assert not re.search("NaN|undefined|Infinity|\\bnull\\b", found.split("Resolved configs")[0])
    return found


def titles(tab: Any) -> list[str]:
    return tab.locator("main h3 > bdi").all_text_contents()


def test_all_records_of_a_real_run_have_charts(
    chromium: Any, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    catalog, run = trained
    with opened(chromium, write_report([run], tmp_path / "r.html", catalog)) as tab:
        assert titles(tab) == [
            *("Target: held-out text", "General: held-out corpus text"),
            *("Target and general text", "Sets of documents", "Top-level domains"),
            *("Effective number of members (of 4)", "Effective number of domains"),
            *("Scores", "Losses of the members"),
            *("Epochs per domain", "Remaining tokens per domain"),
            *(
                "Tokens per second",
                "Time spent waiting for data",
                "Time spent measuring",
                "Training loss on sampled text",
            ),
            *("Gradient norm before clipping", "Samples redirected by bounds"),
        ]
        assert tab.locator(".errors").count() >= 4  # losses, dots
        assert tab.locator(".score").count() >= 8  # updates of four members
        assert 0 < tab.locator(".score.unclear").count() < tab.locator(".score").count()
        assert "fine-tuning" in tab.locator("#losses text").all_text_contents()
        assert "before fine-tuning" in shown(tab)
        assert unnamed(tab) == []


def test_fixed_finished_and_new_runs_share_a_page(chromium: Any, tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "catalog", [1000, 2000, 2000, 5000], TERMS)
    folders = [
        write_run(tmp_path / "plain", mixer="natural", basis=["natural"]),
        write_run(tmp_path / "dga"),
        write_run(tmp_path / "begun", usage=None, losses=(), basis=[f"b{i}" for i in range(12)]),
    ]
    with opened(chromium, write_report(folders, tmp_path / "r.html", catalog)) as tab:
        first = tab.locator("#domains tbody tr").first.locator("td").all_text_contents()
        assert (
            first
            == [
                "3",
                "date",
                "500",
                "5,000",
                "50%",
                "0%",
                "40%",
                "0.50",
                "8k",
                "40%",
                "0.50",
                "8k",
                "0",
            ][: len(first)]
        )
        assert len(first) == 12
        assert tab.locator("image").count() == 1  # the heat map of twelve members
        shown(tab)


def test_missing_records_are_explained(chromium: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "begun", usage=None, losses=())
    for name in ("weights.parquet", "metrics.jsonl"):
        (folder / name).unlink()
    with opened(chromium, write_report([folder], tmp_path / "r.html")) as tab:
        found = shown(tab)
        for sentence in (
            *(
                "No held-out loss on the target goal has been measured yet.",
                "Not measured yet.",
            ),
            *("No weights have been written yet.", "No steps have been recorded yet."),
        ):
            assert sentence in found
        assert tab.locator("svg:visible").count() == 0
    still = write_run(tmp_path / "plain", mixer="natural", basis=["natural"])
    with opened(chromium, write_report([still], tmp_path / "r.html")) as tab:
        assert "All runs use fixed mixtures" in shown(tab)


def test_many_runs_are_compared(chromium: Any, tmp_path: Path) -> None:
    """The last of nine runs has the colour of the first, but other dashes."""
    catalog = write_catalog(tmp_path / "catalog", [1000, 2000, 2000, 5000], TERMS)
    folders = [
        write_run(tmp_path / f"run-{seed}", losses=(6.0, 3.0, 2.0 + seed / 10)) for seed in range(9)
    ]
    for seed, folder in enumerate(folders):
        change_config(folder, config={"seed": seed})
    with opened(chromium, write_report(folders, tmp_path / "r.html", catalog), width=700) as tab:
        assert "Effective number of domains per run" in titles(tab)
        assert (
            tab.locator("#losses > div")
            .first.locator("path[stroke='var(--s0)'][stroke-width='2']")
            .count()
            == 2
        )
        assert "9 2.400 ± 0.091" in " ".join(
            tab.locator("#seeds-title ~ .scroll tbody tr").inner_text().split()
        )
        assert tab.evaluate("document.documentElement.scrollWidth") <= 700
        shown(tab)


def test_hostile_text_has_no_effect(chromium: Any, tmp_path: Path) -> None:
    """Even without the content security policy, the elements are those of harmless text."""
    seen = []
    for kind, words in (("hostile", HOSTILE), ("harmless", HARMLESS)):
        # Lines of metrics.jsonl may contain half a surrogate pair.
        held_out = words + "\udfff" if kind == "hostile" else words
        catalog = write_catalog(tmp_path / kind / "c", [1000, 0, 2000, 5000], [[words]] * 4)
        name = words[:60].replace("/", "|").replace("\x00", "") + (
            "\"'<b>" if kind == "hostile" else ""
        )
        folder = write_run(
            tmp_path / kind / name, target=words, basis=[words, *(f"{words}{i}" for i in range(12))]
        )
        add_records(
            folder,
            *(
                {"kind": "eval", "step": 50, "tokens": 20_000, "loss": 1.0, "error": 0.1}
                | {"set": name_of_set}
                for name_of_set in (held_out, f"{held_out}/test")
            ),
        )
        page = write_report([folder, folder], tmp_path / kind / "r.html", catalog)
        with opened(chromium, page, bypass_csp=True) as tab:
            tab.locator("#weights svg").first.focus()
            tab.keyboard.press("ArrowLeft")
            tab.locator("#filter").fill("script" if kind == "hostile" else "harm")
            tab.wait_for_timeout(50)  # enough time for a missing image to fail
            seen.append((elements(tab), text(tab, "#shown"), tab.locator("h2").all_text_contents()))
            assert f"Two runs for target {words[:20]}" in tab.title()
    assert seen[0] == seen[1]


def test_the_policy_blocks_an_injected_script(chromium: Any, tmp_path: Path) -> None:
    page = write_report([write_run(tmp_path / "a")], tmp_path / "r.html")
    page.write_text(
        page.read_text().replace("</body>", "<script>document.title = 'taken'</script></body>")
    )
    messages: list[str] = []
    with opened(chromium, page, messages=messages) as tab:
        assert tab.title() == "Run a for target goal on catalog nowhere"
    assert ["Content Security Policy" in line for line in messages] == [True]


def test_runs_units_and_points_can_be_selected(
    chromium: Any, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    catalog, run = trained
    page = write_report([write_run(tmp_path / "old"), run], tmp_path / "r.html", catalog)
    with opened(chromium, page) as tab:
        curves = tab.locator("#losses > div:nth-child(3) path[stroke-width='2']")
        assert curves.count() == 2
        tab.get_by_role("button", name="old", exact=True).click()
        assert curves.count() == 1
        tab.get_by_role("button", name="bits per byte").click()
        assert "bits per byte" in tab.locator("#finals svg").first.text_content()
        tab.locator("#filter").fill("7")
        assert text(tab, "#shown") == "1 of 1 shown"
        tab.reload()  # as a live page does. The choices are kept
        settle(tab)
        assert (curves.count(), text(tab, "#shown"), tab.locator("#filter").input_value()) == (
            1,
            "1 of 1 shown",
            "7",
        )
        assert (
            tab.get_by_role("button", name="bits per byte").get_attribute("aria-pressed") == "true"
        )
        tab.get_by_role("button", name="nats per token").click()
        tab.get_by_role("button", name="old", exact=True).click()
        tab.locator("#losses svg").first.hover(position={"x": 60, "y": 50})
        assert text(tab, "#tip") == "0 tokens, nats per token old 6.000"
        chart = tab.locator("#losses svg").first
        chart.focus()
        tab.keyboard.press("Home")
        assert chart.get_attribute("aria-valuetext") == "0 tokens, nats per token; old: 6.000"
        tab.keyboard.press("Escape")
        assert not tab.locator("#tip").is_visible()
        tab.locator("#filter").fill("")
        tab.get_by_role("button", name="Documents").click()
        assert tab.locator("#domains th[aria-sort='descending']").inner_text().split() == [
            "Documents",
            "▾",
        ]


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (700, "dark"), (360, "light")])
def test_layout_and_contrast(
    chromium: Any, trained: tuple[Path, Path], tmp_path: Path, width: int, scheme: str
) -> None:
    catalog, run = trained
    with opened(
        chromium,
        write_report([run], tmp_path / "r.html", catalog),
        width=width,
        color_scheme=scheme,
    ) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert (
            min(
                contrast(tab, ink, paper)
                for ink in ("--ink", "--soft")
                for paper in ("--paper", "--raised")
            )
            >= 4.5
        )
        assert (
            min(contrast(tab, f"--s{i}", "--paper") for i in range(8)) >= 3
        )  # for lines and marks
        tab.emulate_media(media="print", color_scheme=scheme)
        assert (
            tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
