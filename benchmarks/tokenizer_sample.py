"""Compare a tokenizer's sample from hash-chosen blocks with one from a pass over all texts.

The first table has the CPU time of drawing the sample, when the corpus is repeated under other
names. The second has the mean bytes per token on shards that no tokenizer is trained on, if a
sample is drawn from a few blocks of the corpus itself. The two sides run in turns in one process.
"""

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.hardware import headline, today
from data_catalog.format.accounts import Account
from pipeline.config import Rpv2, Tokenizer
from pipeline.parts import Part, make_part
from pipeline.shard import text_sample, tokenize
from pipeline.source.rpv2 import Rpv2Source
from pipeline.source.stage import DOCUMENTS_FILE, read_shard
from pipeline.verdicts import write_verdicts

EVERYTHING = 10**9  # blocks, more than there are
HELD_OUT = 4  # parts at the end of the corpus
FEW_BLOCKS, FEW_CHARACTERS = 8, 2_000_000  # of the second table
Corpus = tuple[list[Part], list[Part]]  # source parts, and the verdicts on each


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, default=Path("../shared/corpus"))
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 16, 32])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        source = Rpv2Source(Rpv2(kind="rpv2", path=arguments.corpus, buckets=("head", "middle")))
        parts = [
            read_shard(shard, folder / "source" / shard.name, source)
            for shard in source.plan().shards
        ]
        trained, held_out = parts[:-HELD_OUT], parts[-HELD_OUT:]
        speed = [
            time_samples(repeated(trained, copies, folder), copies, arguments.rounds)
            for copies in arguments.copies
        ]
        texts = [
            text
            for part in held_out
            for text in pq.read_table(part.folder / DOCUMENTS_FILE)["text"].to_pylist()
        ]
        quality = compare_tokenizers(repeated(trained, 1, folder), texts, folder)
    report(speed, quality, len(trained), len(texts))


def repeated(parts: Sequence[Part], copies: int, folder: Path) -> Corpus:
    """Return each part several times under different names, with verdicts that keep everything."""
    made = []
    for copy in range(copies):
        for part in parts:
            place = folder / f"times-{copies}" / f"{part.name}-{copy:03d}"
            place.mkdir(parents=True, exist_ok=True)
            if not (place / DOCUMENTS_FILE).exists():
                os.link(part.folder / DOCUMENTS_FILE, place / DOCUMENTS_FILE)
            made.append(Part(place, part.fingerprint, part.account, 0))

    def make(out: Path) -> Account:
        for number, part in enumerate(made):
            path = out / f"{part.name}.parquet"
            if number >= len(parts):
                shutil.copy(out / f"{made[number % len(parts)].name}.parquet", path)
                continue
            documents = pq.read_table(part.folder / DOCUMENTS_FILE, columns=["id_int", "text"])
            verdicts = {
                "id_int": documents["id_int"],
                "characters": pc.utf8_length(documents["text"]),
                "failed_rules": np.zeros(documents.num_rows, np.uint64),
                "reason": pa.nulls(documents.num_rows, pa.string()),
            }
            write_verdicts(path, pa.table(verdicts))
        return Account()

    verdicts = make_part(folder / f"kept-{copies}", "kept", make)
    return made, [verdicts] * len(made)


def time_samples(corpus: Corpus, copies: int, rounds: int) -> str:
    """Return a row of the table of CPU times."""
    text_bytes = sum(part.account.kept.characters for part in corpus[0])
    blocks = text_sample.MINIMUM_BLOCKS
    seconds: dict[int, list[float]] = {EVERYTHING: [], blocks: []}
    for number in range(rounds):
        for side in list(seconds) if number % 2 == 0 else list(seconds)[::-1]:
            text_sample.MINIMUM_BLOCKS = side
            started = process_time()
            for _ in tokenize._sample(*corpus, Tokenizer()):
                pass
            seconds[side].append(process_time() - started)
    text_sample.MINIMUM_BLOCKS = blocks
    whole, chosen = (median(seconds[side]) for side in (EVERYTHING, blocks))
    ratios = [old / new for old, new in zip(*seconds.values(), strict=True)]
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(copies, seconds, flush=True)
    return (
        f"| {copies} | {len(corpus[0])} | {text_bytes / 1e9:.2f} | {whole:.2f} | {chosen:.2f} "
        f"| {median(ratios):.2f} ({each}) |"
    )


def compare_tokenizers(corpus: Corpus, texts: list[str], folder: Path) -> list[str]:
    """Return a row per side with the bytes per token of the held-out texts."""
    rows = []
    text_bytes = sum(len(text.encode()) for text in texts)
    default = text_sample.MINIMUM_BLOCKS
    for name, blocks in (("all texts", EVERYTHING), ("few blocks", FEW_BLOCKS)):
        text_sample.MINIMUM_BLOCKS = blocks
        config = Tokenizer(sample_characters=FEW_CHARACTERS)
        chosen = text_sample.choose_blocks(*corpus, FEW_CHARACTERS)
        part = tokenize.make_tokenizer(*corpus, folder / f"tokenizer {name}", config, 0)
        fast, _ = tokenize.load_tokenizer(part.folder / "tokenizer.json")
        tokens = sum(len(encoded.ids) for encoded in fast.encode_batch_fast(texts))
        rows.append(
            f"| {name} | {len(chosen.groups)} | {chosen.characters / 1e6:.1f} "
            f"| {text_bytes / tokens:.4f} |"
        )
        print(rows[-1], flush=True)
    text_sample.MINIMUM_BLOCKS = default
    return rows


def report(speed: list[str], quality: list[str], trained: int, held_out: int) -> None:
    lines = [
        "# The sample that a tokenizer is trained on",
        headline(),
        f"The shared corpus without its last {HELD_OUT} parts ({trained} parts), repeated. "
        f"{Tokenizer().sample_characters / 1e6:.0f} million characters are sampled, from at least "
        f"{text_sample.MINIMUM_BLOCKS} blocks of {text_sample.BLOCK_ROWS:,} documents.",
        "| copies | parts | text, billion characters | CPU seconds, all texts "
        "| CPU seconds, blocks | ratio, median (rounds) |\n|---|---|---|---|---|---|\n"
        + "\n".join(speed),
        f"Tokenizers of {Tokenizer().vocabulary:,} ids, trained on {FEW_CHARACTERS / 1e6:.0f} "
        f"million characters of the corpus once, on {held_out:,} documents of the other parts:",
        "| sample from | parts read | characters read, millions | bytes per token |\n"
        "|---|---|---|---|\n" + "\n".join(quality),
    ]
    text = "\n\n".join(lines) + "\n"
    print(text)
    Path(f"benchmarks/results/{today()}-tokenizer-sample.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
