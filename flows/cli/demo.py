"""The demo: one catalog from text on this machine, three runs that differ in one word, one page."""

import json
from importlib.resources import as_file, files
from pathlib import Path

import pyarrow as pa
from rich.console import Console

import data_catalog
from data_catalog.settings import load
from flows.build import build
from flows.cli.summary import print_build, print_table
from flows.experiment import experiment
from flows.pages.run import summary_table
from pipeline.config import Build
from pipeline.describe.health import compare
from trainer.config import Train

MIXERS = ("natural", "importance", "dga")
COLUMNS = {  # printed name -> key of summary_table
    "mixer": "mixer",
    "target loss": "target_test_loss",
    "general loss": "general_loss",
    "tokens": "tokens",
    "repeats": "repeats",
    "seconds": "seconds",
}
_console = Console()


def run_demo(out: Path) -> None:
    """Build `out/catalog`, train `out/runs/MIXER` for each mixer, write `out/report.html`, print the comparison."""
    with as_file(files("flows.cli")) as recipes:
        catalog = Path(
            build(load(Build, recipes / "demo_build.toml", [setting("out", out / "catalog")]))
        )
        print_build(catalog)
        print_agreement(catalog)
        config = load(
            Train, recipes / "demo_train.toml", [setting("catalog", catalog), setting("out", out)]
        )
    experiment(config, {mixer: (f"mixture.mixer={mixer}",) for mixer in MIXERS})
    runs = [out / "runs" / mixer for mixer in MIXERS]
    print_table(
        pa.Table.from_pylist(
            [{name: row[key] for name, key in COLUMNS.items()} for row in summary_table(runs)]
        )
    )
    _console.print(
        "Losses are nats per token on held-out text; one seed. Repeats: sequences drawn / distinct ones.",
        highlight=False,
    )
    _console.print(f"The page: {(out / 'report.html').resolve()}", highlight=False, soft_wrap=True)


def print_agreement(catalog: Path) -> None:
    """How well the domains agree with what is known of the documents: the package each one is from."""
    opened = data_catalog.open(catalog)
    documents = opened.sql("SELECT source, leaf FROM documents").to_arrow_table()
    found = compare(documents["source"].to_pylist(), documents["leaf"].to_numpy(), opened.levels)
    text = ", ".join(f"{nmi:.2f} at {k} domains" for k, (nmi, _) in found.items())
    _console.print(
        f"agreement of the domains with the packages (normalised mutual information): {text}",
        highlight=False,
        soft_wrap=True,
    )


def setting(key: str, path: Path) -> str:
    """A `--set` for a path; a JSON string is a TOML string too."""
    return f"{key}={json.dumps(str(path), ensure_ascii=False)}"
