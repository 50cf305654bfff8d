"""Compare quality signals computed per batch with the same definitions computed text by text.

Both run in turns in one process. The second table gives, per signal, the share of documents whose
computed value equals the value shipped with the corpus.
"""

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.hardware import headline, today
from pipeline.config import Rpv2
from pipeline.quality.signals.measure import SIGNAL_NAMES, measure_signals
from pipeline.source.documents import Document
from pipeline.source.rpv2 import Rpv2Source
from tests.helpers.plain_signals import plain

ROUNDS = 5


def documents(corpus: Path, shards: int | None) -> list[Document]:
    """Return the documents of the head and middle buckets, which ship signals."""
    source = Rpv2Source(
        Rpv2(kind="rpv2", path=corpus, buckets=("head", "middle"), max_shards=shards)
    )
    return [
        document
        for shard in source.plan().shards
        for document in source.read(shard)
        if isinstance(document, Document)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("../shared/corpus"))
    parser.add_argument("--shards", type=int, default=None)
    parser.add_argument(
        "--documents", type=int, default=1_000, help="documents used to compare the speed"
    )
    arguments = parser.parse_args()
    with_signals = documents(arguments.corpus, arguments.shards)
    texts = [document.text for document in with_signals]
    sample = texts[:: max(len(texts) // arguments.documents, 1)][: arguments.documents]

    measure_signals(sample[:10])
    batch_rates, text_rates = [], []
    for _ in range(ROUNDS):
        started = perf_counter()
        measure_signals(sample)
        batch_rates.append(len(sample) / (perf_counter() - started))
        started = perf_counter()
        for text in sample:
            plain(text)
        text_rates.append(len(sample) / (perf_counter() - started))
    ratio = np.median(np.array(batch_rates) / np.array(text_rates))

    shipped = np.array(
        [[document.signals[name] for name in SIGNAL_NAMES] for document in with_signals]
    )
    agreeing = np.isclose(measure_signals(texts), shipped, rtol=0, atol=1e-8)
    mean = np.mean([len(text) for text in sample])
    lines = [
        "# Computing quality signals",
        "",
        headline(),
        "",
        f"{len(sample):,} documents of {mean:,.0f} characters, one process. "
        f"Medians of {ROUNDS} rounds in turns.",
        "",
        "| | documents/s | minimum | maximum |",
        "|---|---|---|---|",
        *(
            f"| {name} | {np.median(rates):,.0f} | {min(rates):,.0f} | {max(rates):,.0f} |"
            for name, rates in (("per batch", batch_rates), ("text by text", text_rates))
        ),
        "",
        f"Ratio {ratio:.1f}.",
        "",
        f"Agreement with the shipped signals to 8 decimals, {len(with_signals):,} documents:",
        "",
        "| signal | share that agrees |",
        "|---|---|",
        *(
            f"| {name} | {share:.6f} |"
            for name, share in zip(SIGNAL_NAMES, agreeing.mean(axis=0), strict=True)
        ),
    ]
    Path(f"benchmarks/results/{today()}-signals.md").write_text(
        "\n".join(lines) + "\n", encoding="utf-8"
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
