"""Measure the start time of commands, compared with an interpreter that only imports Typer.

Commands run in turns, each in a new process.

python -m benchmarks.command_start
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from benchmarks.hardware import headline, today

# The code of the installed script.
MAIN = "import sys; sys.argv[0] = 'clustermix'; from flows.cli.main import main; main()"
BARE = {
    "python -c pass": ["-c", "pass"],
    "import typer": ["-c", "import typer"],
    "import typer.rich_utils": ["-c", "import typer.rich_utils"],
}
COMMANDS = (
    ["--version"],
    ["--help"],
    ["query", "--help"],
    ["train", "--help"],
    ["query", "{catalog}", "SELECT 1"],
    ["domains", "{catalog}"],
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--catalog", type=Path, default=Path("catalogs/sample"))
    parser.add_argument("--times", type=int, default=10, help="timed runs per command")
    arguments = parser.parse_args()
    commands = dict(BARE)
    for words in COMMANDS:
        command = [word.format(catalog=arguments.catalog) for word in words]
        commands[f"clustermix {' '.join(command)}"] = ["-c", MAIN, *command]
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(arguments.times + 1):
        for name, words in commands.items():
            seconds[name].append(run(words))
    lines = [
        f"# Start of the command line\n\n{headline()}\n",
        f"{arguments.times} timed runs per command, each in its own process, in turns, after one "
        "warm-up run. Other work on the machine affects the elapsed seconds, but hardly the CPU "
        "seconds.\n",
        "| command | seconds, median | seconds, minimum | CPU seconds, median |",
        "|---|---|---|---|",
    ]
    for name, times in seconds.items():
        wall, work = zip(*times[1:], strict=True)
        lines.append(
            f"| `{name}` | {statistics.median(wall):.3f} | {min(wall):.3f} "
            f"| {statistics.median(work):.3f} |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    Path(f"benchmarks/results/{today()}-command-start.md").write_text(text, encoding="utf-8")


def run(words: list[str]) -> tuple[float, float]:
    """Run one process and return its elapsed seconds and its CPU seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
        check=False,
    )
    seconds, after = perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{words}: exit code {done.returncode}: {done.stderr}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
