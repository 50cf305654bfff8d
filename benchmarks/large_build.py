"""A build of a million documents and more: time and peak memory of every stage.

The corpus is made from the shared one: each document gives many, a window of its words of which one in twenty is another of its words.
Embeddings are synthetic, since the encoder would take hours for each million: the original's own vector, turned by noise.
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
NOISE = 0.6  # length of the noise beside a vector of length 1


def originals(corpus: Path) -> list[list[str]]:
    texts = []
    for path in sorted((corpus / "documents").glob("*/*/*.json.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["raw_content"].split() for line in lines]
    return texts


def write_corpus(root: Path, corpus: Path, documents: int, shards: int) -> None:
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
    """The embeddings of the sample's documents; which belongs to which does not matter."""
    return np.concatenate(
        [
            np.load(path, allow_pickle=False)
            for path in sorted(sample.glob(f"work/embed/*/{EMBEDDINGS_FILE}"))
        ]
    ).astype(np.float32)


def synthetic(base: np.ndarray):  # type: ignore[no-untyped-def]
    """A stage in the place of `pipeline.embed.stage.embed_part`, with the same files."""

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
    """The most memory that this process has held since the last call."""
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
        f"# A build of {arguments.documents:,} documents\n\n{headline()}\n\n{__doc__.splitlines()[2]}\nEmbeddings are synthetic. "
        f"{arguments.workers} threads, {perf_counter() - began:,.0f} s in all, the catalog holds {bytes_kept / 2**30:.2f} GiB.\n\n"
        + "\n".join(rows)
    )
    Path(f"benchmarks/results/{today()}-large-build.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
