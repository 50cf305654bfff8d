"""Measure how smoothly the catalog page runs in a headless browser, with synthetic domains.

python -m benchmarks.pages --granularities 64 512 4096

Needs Chromium and playwright. The page is drawn by the CPU. The results per action are the CPU
time of the main thread, the time between two frames (at least 17 ms), and the tasks over 50 ms,
during which a page does not respond.
"""

import argparse
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.hardware import headline
from flows.pages.catalog.domains import EXAMPLES_PER_KIND, MAXIMUM_PAGE_EXAMPLES
from flows.pages.catalog.page import CATALOG_SCRIPTS
from flows.pages.shared.numbers import json_numbers
from flows.pages.shared.shell import assemble
from pipeline.describe.examples import EXAMPLE_KINDS, SNIPPET_CHARACTERS

TARGETS, SITES, SIGNALS = 9, 300, 6
POINTER_MOVES = 200
WATCH = """() => {
    const seen = { frames: [], tasks: [] };
    const observer = new PerformanceObserver((list) => {
        list.getEntries().forEach((entry) => seen.tasks.push(entry.duration));
    });
    observer.observe({ type: "longtask" });
    let last = performance.now();
    const frame = (now) => {
        seen.frames.push(now - last);
        last = now;
        requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    window.seen = seen;
    window.over = (place, kind, i) => {
        const node = document.querySelector(place), box = node.getBoundingClientRect();
        const at = {
            clientX: box.left + (box.width * (i % 97)) / 97,
            clientY: box.top + (box.height * ((i * 7) % 89)) / 89,
        };
        return [node, new PointerEvent(kind, at)];
    };
    window.pick = (place, i) => {
        const box = document.querySelector(place);
        box.selectedIndex = i % box.options.length;
        return [box, new Event("change")];
    };
    window.type = (i) => {
        const box = document.querySelector("#search");
        const texts = [
            "w", "wo", "wor", "word", "word1", "word12", "word12 s", "word12 si", "word12 sit",
            "site1",
        ];
        box.value = texts[i % 10];
        return [box, new Event("input")];
    };
}"""
# Each action is an input event of a reader. One event is sent per frame.
ACTIONS = {
    "point along the treemap": "(i) => over('#treemap canvas', 'pointermove', i)",
    "point along the map": "(i) => over('#map canvas', 'pointermove', i)",
    "type in the search": "(i) => type(i)",
    "open a domain": "(i) => over('#treemap canvas', 'click', i)",
    "change the colour": "(i) => pick('#colour', i)",
    "change the level": "(i) => pick('#level', i)",
}
REPEATS = {"point along the treemap": POINTER_MOVES, "point along the map": POINTER_MOVES}
DEFAULT_REPEATS = 20


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--granularities", type=int, nargs="+", default=[64, 512, 4096])
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder, sync_playwright() as library:
        page = Path(folder) / "page.html"
        page.write_text(synthetic(arguments.granularities), encoding="utf-8")
        size = page.stat().st_size / 1e6
        browser = library.chromium.launch(executable_path=arguments.chromium)
        rows = [measure(browser, page, name, len(arguments.granularities)) for name in ACTIONS]
        loaded = np.median([row.pop() for row in rows])
        version = browser.version
        browser.close()
    print(
        f"# The catalog page with {arguments.granularities[-1]:,} domains\n\n"
        f"{headline()}, Chromium {version}\n"
    )
    levels = " → ".join(f"{k:,}" for k in arguments.granularities)
    print(
        f"Levels {levels}, {TARGETS} targets. The page has {size:.1f} MB and is ready "
        f"{loaded / 1000:.2f} s after the request.\n"
    )
    print(
        "| action | times | main thread, CPU ms per action | scripts, CPU ms per action "
        "| frame time: median, ms | 95 %, ms | tasks over 50 ms | longest task, ms |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |")
    load = os.getloadavg()[0]
    print(
        f"\nWithout a GPU. The load average of the machine was {load:.0f}, which also affects "
        "frame times and long tasks."
    )


def measure(browser: Any, page: Path, name: str, levels: int) -> list[Any]:
    """Return a table row for one action at the finest level.

    The row ends with the milliseconds until the page was ready.
    """
    times = REPEATS.get(name, DEFAULT_REPEATS)
    tab = browser.new_page(viewport={"width": 1400, "height": 1000})
    tab.goto(page.as_uri())
    ready = tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    tab.select_option("#level", index=levels - 1)
    tab.wait_for_timeout(1000)
    tab.evaluate(WATCH)
    devtools = tab.context.new_cdp_session(tab)
    # CPU time, since other processes use the cores too.
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent() -> np.ndarray:
        metrics = {
            metric["name"]: metric["value"]
            for metric in devtools.send("Performance.getMetrics")["metrics"]
        }
        return 1000 * np.array([metrics["TaskDuration"], metrics["ScriptDuration"]])

    before = spent()
    tab.evaluate(
        f"""(times) => new Promise((done) => {{
            const make = {ACTIONS[name]};
            let i = 0;
            const next = () => {{
                if (i === times) return requestAnimationFrame(() => done());
                const [node, event] = make(i++);
                node.dispatchEvent(event);
                requestAnimationFrame(next);
            }};
            requestAnimationFrame(next);
        }})""",
        times,
    )
    task, script = (spent() - before) / times
    seen = tab.evaluate("seen")
    tab.close()
    cells = [
        f"{task:.1f}",
        f"{script:.1f}",
        f"{np.median(seen['frames']):.0f}",
        f"{np.quantile(seen['frames'], 0.95):.0f}",
    ]
    return [name, times, *cells, len(seen["tasks"]), f"{max(seen['tasks'], default=0):.0f}", ready]


def synthetic(granularities: list[int]) -> str:
    """Return a page of synthetic domains that have all optional fields."""
    random = np.random.Generator(np.random.Philox(key=1))
    examples_per_kind = max(
        1,
        min(EXAMPLES_PER_KIND, MAXIMUM_PAGE_EXAMPLES // (len(EXAMPLE_KINDS) * sum(granularities))),
    )
    leaves = granularities[-1]
    tokens, places = (
        np.exp(random.normal(12, 1, leaves)).astype(int),
        random.normal(size=(leaves, 2)),
    )
    data = {
        "levels": [level(random, k, tokens, places, examples_per_kind) for k in granularities],
        "finer": [],
        "signals": [f"signal {i}" for i in range(SIGNALS)],
        "targets": [f"target_{i}" for i in range(TARGETS)],
        "names": [f"site{i}.example" for i in range(SITES)],
        "flags": {"tiny": "with fewer than 5 documents"},
        "kinds": EXAMPLE_KINDS,
        "variance": 0.14,
    }
    fields = dict.fromkeys(("summary", "notes", "levels", "drops", "stages"), "") | {
        "title": "synthetic"
    }
    return assemble(
        "flows.pages.catalog", CATALOG_SCRIPTS, title="synthetic", fields=fields, data=data
    )


def level(
    random: np.random.Generator,
    k: int,
    tokens: np.ndarray,
    places: np.ndarray,
    examples_per_kind: int,
) -> dict[str, Any]:
    """Return the columns of a level in the format of `flows.pages.catalog.domains`."""
    words = [f"word{i}" for i in range(5000)]
    snippet = " ".join(random.choice(words, 60))
    own = tokens.reshape(k, -1).sum(axis=1)

    def weights() -> list[Any]:
        return json_numbers(random.dirichlet(np.full(k, 0.1)))

    def example(kind: int) -> list[Any]:
        start = int(random.integers(len(snippet) - SNIPPET_CHARACTERS))
        return [
            kind,
            0.5,
            int(random.integers(SITES)),
            f"2023-06/0002/en_head.json.gz/{start}",
            snippet[start : start + SNIPPET_CHARACTERS],
        ]

    return {
        "level": k,
        "domain": list(range(k)),
        "documents": (own // 800 + 1).tolist(),
        "tokens": own.tolist(),
        "distance": json_numbers(random.uniform(0.5, 1.2, k)),
        "radius": json_numbers(random.uniform(0.5, 1.2, k)),
        "quantiles": json_numbers(np.sort(random.uniform(0.3, 1.6, (k, 5)), axis=1)),
        "terms": [random.choice(words, 8).tolist() for _ in range(k)],
        "sources": [
            [
                value
                for i in range(5)
                for value in (int(random.integers(SITES)), round(0.5 / 2**i, 3))
            ]
            for _ in range(k)
        ],
        "languages": [[0, 1.0]] * k,
        "flags": [["tiny"] if i % 50 == 0 else [] for i in range(k)],
        "dropped": json_numbers(random.uniform(0, 0.2, k)),
        "natural": json_numbers(own / own.sum()),
        "weights": {kind: [weights() for _ in range(TARGETS)] for kind in ("hard", "distance")},
        "places": json_numbers(places.reshape(k, -1, 2).mean(axis=1)),
        "examples": [
            [example(kind) for kind in range(len(EXAMPLE_KINDS)) for _ in range(examples_per_kind)]
            for _ in range(k)
        ],
        "signals": [json_numbers(random.uniform(0, 1, k)) for _ in range(SIGNALS)],
    }


if __name__ == "__main__":
    main()
