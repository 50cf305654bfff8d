"""What a real browser makes of the report: a run with every record there is, hostile text, and the reader's clicks."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from flows.report import write_report
from tests.test_report import add
from tests.test_report_page import HOSTILE
from tests.tiny_run import write_catalog, write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def load(address: str, profile: Path, *, milliseconds: int = 2000) -> tuple[str, list[str]]:
    """The document after its scripts ran for so long on the page's clock, and what was written to the console."""
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-background-networking --enable-logging=stderr --dump-dom --window-size=1400,2000"
    )
    command = [str(CHROMIUM), *flags.split(), f"--virtual-time-budget={milliseconds}", f"--user-data-dir={profile}", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def with_script(page: Path, script: str) -> Path:
    """A copy without the policy, which would refuse a further script, and with one that a reader's hands could be."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    copy = page.with_name(f"copy-{page.name}")
    copy.write_text(text.replace("</body>", f"<script>setTimeout(() => {{ {script} }}, 500)</script></body>"))
    return copy


def without_scripts(dom: str) -> str:
    return re.sub(r"<script.*?</script>", "", dom, flags=re.S)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A catalog, and a run on it as the trainer itself leaves it: scores with errors, bounds, and fine-tuning."""
    import torch

    from tests.tiny_catalog import write_tiny_catalog
    from tests.tiny_training import tiny_config
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
    torch.set_num_threads(1)  # a model so small is many times slower on processors that others use too
    train(tiny_config(catalog, folder / "dga", **changed))
    torch.set_num_threads(threads)
    return catalog, folder / "dga"


def test_every_record_of_a_real_run_is_drawn_and_nothing_is_loaded(trained: tuple[Path, Path], tmp_path: Path) -> None:
    catalog, run = trained
    page = write_report([run], tmp_path / "r.html", catalog)
    dom, console = load(page.as_uri(), tmp_path / "profile")
    assert console == []
    shown = without_scripts(dom)
    titles = re.findall(r"<h3><bdi>(.*?)</bdi></h3>", shown)
    for title in (
        *("Target: held-out text", "General: held-out corpus text"),
        *("Target and general text", "Top-level domains", "Sets of documents"),
        *("Effective members (of 4)", "Effective domains", "Scores", "Losses of the members"),
        *("Tokens a second", "Time spent waiting for data", "Time spent measuring"),
        *("Draws that bounds moved", "Epochs: how often each domain was used, most used first"),
    ):
        assert title in titles
    assert shown.count('class="errors"') >= 8  # losses, scores, dots
    assert ">fine-tuning</text>" in shown
    assert "before fine-tuning" in shown
    for fault in ("NaN", "undefined", "Infinity", ">null<"):
        assert fault not in shown


def test_an_old_static_and_a_begun_run_are_drawn(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "catalog", [1000, 2000, 2000, 5000], [["tensor", "layer"], ["socket"], ["plot", "axis"], ["date"]])
    folders = [
        write_run(tmp_path / "plain", mixer="natural", basis=["natural"]),
        write_run(tmp_path / "dga"),
        write_run(tmp_path / "begun", usage=None, losses=(), basis=[f"b{i}" for i in range(12)]),
    ]
    dom, console = load(write_report(folders, tmp_path / "r.html", catalog).as_uri(), tmp_path / "profile")
    assert console == []
    body = re.search(r'<table id="domains">.*?<tbody>(.*?)</tbody>', dom, re.S)[1]
    first = re.findall(r"<bdi>(.*?)</bdi>", body)[:13]
    assert first == ["3", "date", "500", "5,000", "50%", "0%", "40%", "0.50", "8k", "40%", "0.50", "8k", "0"]
    assert dom.count("<image ") == 1  # the heat map of twelve members
    assert not any(fault in without_scripts(dom) for fault in ("NaN", "undefined", "Infinity"))


def test_hostile_text_runs_nothing(tmp_path: Path) -> None:
    hostile = write_catalog(tmp_path / "c", [1000, 0, 2000, 5000], [[HOSTILE]] * 4)
    folder = write_run(tmp_path / HOSTILE[:20].replace("/", "|"), target=HOSTILE, basis=[HOSTILE, *(f"{HOSTILE}{i}" for i in range(12))])
    add(folder, {"kind": "eval", "step": 50, "tokens": 20_000, "set": HOSTILE, "loss": 1.0, "error": 0.1})
    add(folder, {"kind": "eval", "step": 50, "tokens": 20_000, "set": f"{HOSTILE}/test", "loss": 1.0, "error": 0.1})
    page = write_report([folder], tmp_path / "r.html", hostile)
    dom, console = load(page.as_uri(), tmp_path / "profile")
    assert (console, without_scripts(dom).count("<img")) == ([], 0)
    # A script that got in after all would still be refused.
    page.write_text(page.read_text().replace("</body>", "<script>document.title = 'taken'</script></body>"))
    dom, console = load(page.as_uri(), tmp_path / "profile")
    assert "Content Security Policy" in "".join(console)
    assert "<title>taken" not in dom


def test_the_reader_chooses_runs_units_and_points(trained: tuple[Path, Path], tmp_path: Path) -> None:
    catalog, run = trained
    page = write_report([write_run(tmp_path / "old"), run], tmp_path / "r.html", catalog)
    script = """
      const said = [], look = (what) => said.push(what);
      const press = (text) => [...document.querySelectorAll("button")].find((b) => b.textContent === text).click();
      const paths = () => document.querySelectorAll("#losses > div:nth-child(3) path[stroke-width='2']").length;
      const unit = () => document.querySelector("#finals svg").textContent.includes("bits per byte");
      const find = (place) => document.querySelector(place), point = (chart, y) => {
        const box = chart.getBoundingClientRect();
        chart.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + 60, clientY: box.top + y }));
        const found = find("#tip").textContent;
        chart.dispatchEvent(new PointerEvent("pointerleave"));
        return found;
      };
      look(paths()); press("old"); look(paths()); press("old");
      look(unit()); press("bits per byte"); look(unit()); press("nats per token");
      look(point(find("#losses svg"), 50)); look(point(find("#finals svg"), 40).startsWith("general") || point(find("#finals svg"), 40));
      find("#filter").value = "7"; find("#filter").dispatchEvent(new Event("input")); look(find("#shown").textContent);
      look(performance.getEntriesByType("resource").length);
      document.title = JSON.stringify(said);
    """
    dom, console = load(with_script(page, script).as_uri(), tmp_path / "profile")
    assert console == []
    said = re.search(r"<title>(.*?)</title>", dom)[1]
    assert said == '[2,1,false,true,"0 tokens, nats per tokenold6.000",true,"1 of 1 shown",0]', said
