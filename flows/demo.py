"""The demo: one catalog from text on this machine, three runs that differ in one word, one page."""

from importlib.resources import as_file, files
from pathlib import Path

import pyarrow as pa

from data_catalog.settings import load
from flows.build import build
from flows.report import summary_table, write_report
from flows.summary import print_build, print_table
from flows.train import train
from pipeline.config import Build

MIXERS = ("natural", "importance", "dga")


def run_demo(out: Path) -> None:
    """Build `out/catalog`, train `out/runs/MIXER` for each mixer, write `out/report.html`, print the comparison."""
    with as_file(files("flows")) as recipes:
        catalog = Path(build(load(Build, recipes / "demo_build.toml", [f"out={_quoted(out / 'catalog')}"])))
        print_build(catalog)
        runs = []
        for mixer in MIXERS:
            overrides = [f"catalog={_quoted(catalog)}", f"out={_quoted(out / 'runs' / mixer)}", f"mixture.mixer={mixer}"]
            runs.append(Path(train(recipes / "demo_train.toml", overrides)))
    page = write_report(runs, out / "report.html", catalog)
    print_table(pa.Table.from_pylist(summary_table(runs)))
    print_table(pa.table({"report": [str(page.resolve())]}))


def _quoted(path: Path) -> str:
    """A path as a TOML string."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
