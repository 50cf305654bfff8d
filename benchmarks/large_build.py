"""Measure the time and the peak memory of every stage in a build of a million documents.

The corpus is derived from the shared one. Each document yields several windows of its words, in
which one word in twenty is replaced with another word of the document.

Embeddings are synthetic, since the encoder would take hours per million documents: the vector of
the original document with noise.
"""

import argparse
import gzip
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow.compute as pc

from benchmarks.hardware import headline, today
from benchmarks.stages import HEADER, row
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.manifest import fingerprint, write_json
from data_catalog.settings import parse
from pipeline.config import Build, Embed
from pipeline.embed.identity import identify
from pipeline.embed.stage import EMBEDDINGS_FILE, IDENTITY_FILE
from pipeline.parts import Part, make_part
from pipeline.run import build
from pipeline.verdicts import kept_batches, kept_key

WORDS = 120
NOISE = 0.6  # norm of the noise added to a vector of unit norm


def originals(corpus: Path) -> list[list[str]]:
    """Return the words of each document of the shared corpus."""
    texts = []
    for path in sorted((corpus / "documents").glob("*/*/*.json.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["raw_content"].split() for line in lines]
    return texts


def write_corpus(root: Path, corpus: Path, documents: int, shards: int) -> None:
    """Write the derived corpus as gzipped JSON lines. Existing shards are kept."""
    texts = originals(corpus)
    for shard in range(shards):
        place = root / f"documents/2023-06/{shard:04d}/en_head.json.gz"
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.Generator(np.random.Philox(key=[shard, 0]))
        chosen = random.integers(len(texts), size=documents // shards)
        with gzip.open(place.with_suffix(".tmp"), "wt", encoding="utf-8", compresslevel=1) as file:
            for number in chosen.tolist():
                words = texts[number]
                start = int(random.integers(max(len(words) - WORDS, 0) + 1))
                window = words[start : start + WORDS]
                for i in random.integers(len(window), size=max(len(window) // 20, 1)).tolist():
                    window[i] = words[int(random.integers(len(words)))]
                record = {
                    "raw_content": " ".join(window),
                    "url": str(number),
                    "source_domain": f"site-{number % 997}",
                    "language": "en",
                }
                file.write(json.dumps(record) + "\n")
        place.with_suffix(".tmp").rename(place)


def vectors(sample: Path) -> np.ndarray:
    """Return the embeddings of the sample catalog, `(documents, dim)` float32, in any order."""
    return np.concatenate(
        [
            np.load(path, allow_pickle=False)
            for path in sorted(sample.glob(f"work/embed/*/{EMBEDDINGS_FILE}"))
        ]
    ).astype(np.float32)


def synthetic(base: np.ndarray):  # type: ignore[no-untyped-def]
    """Return a stage that replaces `embed_part` of `pipeline.embed.stage`, with the same files."""

    def embed_part(source: Part, verdicts: Part, folder: Path, config: Embed) -> Part:
        def make(out: Path) -> Account:
            numbers: list[int] = []
            characters = 0
            for table in kept_batches(source, verdicts, ["url", "text"]):
                numbers += map(int, table["url"].to_pylist())
                characters += pc.sum(pc.utf8_length(table["text"])).as_py() or 0
            random = np.random.Generator(np.random.Philox(key=[int(source.name[8:12]), 1]))
            noise = random.standard_normal((len(numbers), base.shape[1]), np.float32)
            x = base[np.array(numbers) % len(base)] + NOISE / np.sqrt(base.shape[1]) * noise
            np.save(
                out / EMBEDDINGS_FILE,
                (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16),
                allow_pickle=False,
            )
            write_json(out / IDENTITY_FILE, identify(config))
            amount = Tally(rows=len(numbers), characters=characters)
            return Account(read=amount, kept=amount)

        return make_part(
            folder, fingerprint("synthetic", source.fingerprint, kept_key(source, verdicts)), make
        )

    return embed_part


def peak_mebibytes() -> float:
    """Return the peak memory of this process since the last call, in MiB."""
    [line] = [
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    ]
    Path("/proc/self/clear_refs").write_text("5")
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--corpus", type=Path, default=Path("../shared/corpus"))
    parser.add_argument("--sample", type=Path, default=Path("catalogs/sample"))
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/cache/large"))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    shards = max(arguments.documents // 16_000, 1)
    write_corpus(arguments.folder / "corpus", arguments.corpus, arguments.documents, shards)
    shutil.rmtree(arguments.folder / "catalog", ignore_errors=True)
    replaced = synthetic(vectors(arguments.sample))
    settings = {
        "out": str(arguments.folder / "catalog"),
        "source": {"kind": "rpv2", "path": str(arguments.folder / "corpus")},
        "quality": {"preset": "together"},
        "dedup": {"tiers": ["digest"]},
        "cluster": {"granularities": [64, 4096]},
        "tokenizer": {"vocabulary": 16_000},
        "targets": [{"name": "law", "path": str(arguments.corpus / "targets/heldout_law")}],
    }
    rows = [f"{HEADER} peak MiB |", "|---|---|---|---|---|---|"]
    began = perf_counter()

    def timed(stage, function, calls):  # type: ignore[no-untyped-def]
        if not calls:
            return []
        peak_mebibytes()
        started = perf_counter()
        with ThreadPoolExecutor(arguments.workers) as pool:
            parts = list(
                pool.map(lambda call: (replaced if stage == "embed" else function)(*call), calls)
            )
        seconds = perf_counter() - started
        rows.append(f"{row(stage, parts, seconds)} {peak_mebibytes():,.0f} |")
        print(rows[-1], flush=True)
        return parts

    root = build(parse(Build, settings, "large build"), timed)
    bytes_kept = sum(
        path.stat().st_size
        for path in root.rglob("*")
        if path.is_file() and "work" not in path.relative_to(root).parts
    )
    text = (
        f"# A build of {arguments.documents:,} documents\n\n{headline()}\n\n"
        f"{__doc__.split(chr(10) * 2)[1]}\nEmbeddings are synthetic. "
        f"{arguments.workers} threads, {perf_counter() - began:,.0f} s in total. The catalog holds "
        f"{bytes_kept / 2**30:.2f} GiB.\n\n" + "\n".join(rows)
    )
    Path(f"benchmarks/results/{today()}-large-build.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
