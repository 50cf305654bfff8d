"""Draw the README's picture from the demo: `python docs/make_overview.py demo`.

The left side is the catalog's treemap, the right side the losses of the runs. Needs the extra
`notebook` and Chromium.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import plotly.io

import data_catalog

OVERVIEW = Path(__file__).parent / "overview.png"
WIDTH, HEIGHT = 1400, 600
PAGE = """<!doctype html><meta charset="utf-8">
<style>body {{ margin: 0; display: flex; background: white }}</style>
<div style="width: 760px">{treemap}</div><div style="width: 640px">{losses}</div>"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the README's picture from the demo.")
    parser.add_argument("demo", type=Path, help="the folder that `make demo` wrote")
    parser.add_argument("--browser", default="chromium")
    arguments = parser.parse_args()
    catalog = data_catalog.open(arguments.demo / "catalog", runs=[arguments.demo / "runs" / "*"])
    treemap = catalog.plot.treemap(catalog.levels.granularities[0], "statistics")
    treemap.update_layout(width=760, height=HEIGHT)
    losses = catalog.plot.losses()
    losses.update_layout(width=640, height=HEIGHT)
    parts = [
        plotly.io.to_html(
            figure, config={"displayModeBar": False}, full_html=False, include_plotlyjs=i == 0
        )
        for i, figure in enumerate((treemap, losses))
    ]
    with TemporaryDirectory() as folder:
        page = Path(folder) / "overview.html"
        page.write_text(PAGE.format(treemap=parts[0], losses=parts[1]), encoding="utf-8")
        command = [
            arguments.browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--window-size={WIDTH},{HEIGHT}",
            "--virtual-time-budget=8000",
            f"--user-data-dir={folder}/profile",
            f"--screenshot={OVERVIEW}",
            page.as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not OVERVIEW.is_file():
        sys.exit(f"{arguments.browser}: no picture was made. {done.stderr}")


if __name__ == "__main__":
    main()
