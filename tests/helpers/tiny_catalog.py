"""A tiny catalog in the format that the trainer reads, made without the pipeline.

It has two top-level domains of four leaves. Leaf l has the words 8l + 1 to 8l + 7, and 0 is
end-of-text. Leaf 6 is empty, and leaf 7 is tiny. The target `spe` has the words of leaf 2, and
`other` those of leaf 5. Benchmarks make larger ones, of other `Languages`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_catalog.format.layout import Layout, Levels
from data_catalog.format.manifest import fingerprint, sha256_file
from data_catalog.format.tables import DISTRIBUTIONS, DOMAINS, OFFSETS, TARGET
from data_catalog.format.tokens import write_tokens
from tests.helpers.manifests import ENCODER, write_manifest

LEVELS = Levels((2, 8))
WORDS = 8  # of a leaf's language, the unused first one included
VOCABULARY = 8 * WORDS
DOCUMENTS = (40, 24, 30, 16, 12, 20, 0, 1)  # train documents of each leaf


@dataclass(frozen=True)
class Languages:
    """The leaves of a catalog, each of which has a language of its own."""

    levels: Levels = LEVELS
    words: int = WORDS
    """Words of a leaf's language, the unused first one included."""
    targets: Mapping[str, int] = field(default_factory=lambda: {"spe": 2, "other": 5})
    """Leaf of each target."""

    @property
    def vocabulary(self) -> int:
        return self.levels.leaves * self.words


def write_tiny_catalog(
    root: Path,
    documents: tuple[int, ...] = DOCUMENTS,
    document_tokens: int = 24,
    languages: Languages = Languages(),
) -> Path:
    levels, span = languages.levels, languages.levels.span(languages.levels.granularities[0])
    layout = Layout(root, 1)
    layout.tables.mkdir(parents=True)
    random = np.random.Generator(np.random.Philox(key=7))
    rows = []
    for top in range(levels.granularities[0]):
        written: list[np.ndarray] = []
        for leaf in range(span * top, span * (top + 1)):
            for split, count in (
                ("train", documents[leaf]),
                ("heldout", 2 if documents[leaf] > 1 else 0),
            ):
                texts = [
                    speak(random, leaf, document_tokens, languages.words) for _ in range(count)
                ]
                if texts:
                    first = {"first_row": len(written), "first_token": sum(map(len, written))}
                    rows.append(
                        {
                            "leaf": leaf,
                            "split": split,
                            "top": top,
                            "part": 0,
                            **first,
                            "rows": count,
                            "tokens": sum(map(len, texts)),
                        }
                    )
                written += texts
        layout.tokens(top).parent.mkdir(parents=True)
        write_tokens(layout.tokens(top), _lists(written))
    pq.write_table(pa.Table.from_pylist(rows, schema=OFFSETS), layout.offsets)
    for name, leaf in languages.targets.items():
        _write_target(layout.target(name), random, leaf, document_tokens, languages.words)
    _write_distributions(layout, rows, languages)
    _write_domains(layout, rows, levels)
    end_of_text = _write_tokenizer(layout.tokenizer, languages.vocabulary)
    tokenizer = {
        "vocabulary": languages.vocabulary,
        "end_of_text": end_of_text,
        "sha256": sha256_file(layout.tokenizer / "tokenizer.json"),
    }
    return write_manifest(
        root,
        fingerprint=fingerprint("tiny", documents, document_tokens),
        granularities=levels.granularities,
        targets=list(languages.targets),
        tokenizer=tokenizer,
    )


def speak(random: np.random.Generator, leaf: int, tokens: int, words: int) -> np.ndarray:
    """Return a random walk over the words of a leaf, mostly to the next one, and end-of-text."""
    steps = np.where(random.random(tokens - 1) < 0.8, 1, random.integers(1, words, tokens - 1))
    spoken = np.cumsum(steps) % (words - 1) + 1 + words * leaf
    return np.append(spoken, 0).astype(np.uint16)


def _lists(documents: list[np.ndarray]) -> pa.LargeListArray:
    offsets = np.cumsum([0, *map(len, documents)])
    return pa.LargeListArray.from_arrays(
        pa.array(offsets, pa.int64()), pa.array(np.concatenate(documents), pa.uint16())
    )


def _write_target(
    folder: Path, random: np.random.Generator, leaf: int, document_tokens: int, words: int
) -> None:
    folder.mkdir(parents=True)
    splits = ["align"] * 8 + ["validation"] * 6 + ["test"] * 6
    texts = [speak(random, leaf, document_tokens, words) for _ in splits]
    rows = [
        {
            "doc_id": f"{i}",
            "id_int": i,
            "text": "",
            "split": split,
            "leaf": leaf,
            "distance": 0.0,
            "tokens": len(text),
        }
        for i, (split, text) in enumerate(zip(splits, texts, strict=True))
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=TARGET), folder / "documents.parquet")
    write_tokens(folder / "tokens.arrow", _lists(texts))
    (folder / "target.json").write_text(json.dumps({"name": folder.name, "encoder": ENCODER}))


def _write_distributions(layout: Layout, offsets: list[dict], languages: Languages) -> None:
    count = languages.levels.leaves
    tokens, far = np.zeros(count), 0.16 / count
    for row in offsets:
        tokens[row["leaf"]] += row["tokens"]
    leaves = {
        ("natural", "natural"): tokens / tokens.sum(),
        ("uniform", "uniform"): np.full(count, 1 / count),
    }
    for name, leaf in languages.targets.items():
        near = np.full(count, far)
        near[leaf] = 1 - far * (count - 1)
        leaves[(name, "hard")] = np.eye(count)[leaf]
        leaves[(name, "distance")] = near
    rows = [
        {"name": name, "kind": kind, "level": level, "domain": domain, "weight": weight}
        for (name, kind), weights in leaves.items()
        for level in languages.levels.granularities
        for domain, weight in enumerate(weights.reshape(level, -1).sum(axis=1).tolist())
        if weight > 0
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=DISTRIBUTIONS), layout.distributions)


def _write_domains(layout: Layout, offsets: list[dict], levels: Levels) -> None:
    rows = [
        {
            "level": level,
            "domain": domain,
            "documents": sum(
                row["rows"] for row in offsets if row["leaf"] // levels.span(level) == domain
            ),
            "tokens": sum(
                row["tokens"] for row in offsets if row["leaf"] // levels.span(level) == domain
            ),
            "terms": [f"w{domain}"],
        }
        for level in levels.granularities
        for domain in range(level)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=DOMAINS), layout.domains)


def _write_tokenizer(folder: Path, vocabulary: int) -> int:
    words = {"<|end|>": 0, **{f"w{i}": i for i in range(1, vocabulary)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<|end|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", unk_token="<|end|>"
    ).save_pretrained(folder)
    return 0
