"""A tiny version of the folder that the documentation uses.

It has the recipes, corpora, targets, a catalog and two finished runs.
"""

import gzip
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.repository import ROOT
from tests.helpers.tiny_corpus import SUBJECTS, sentences
from tests.helpers.tiny_questions import question

RECIPES = ROOT / "configs"
TEXTS = {
    **SUBJECTS,
    "medicine": (
        "mice",
        "gene",
        "cells",
        "protein",
        "expression",
        "patients",
        "tumor",
        "clinical",
        "dose",
        "therapy",
    ),
    "law": (
        "court",
        "judge",
        "person",
        "property",
        "contract",
        "appeal",
        "tribunal",
        "statute",
        "insurer",
        "defendant",
    ),
    "shops": (
        "phone",
        "battery",
        "screen",
        "laptop",
        "order",
        "price",
        "shipping",
        "camera",
        "review",
        "store",
    ),
}
TARGETS = {"heldout_biomed": "medicine", "heldout_law": "law", "heldout_web": "shops"}
DOCUMENTS = 840
SHORT = {  # changes that make the build of a recipe take seconds
    "embed.max_tokens": "32",
    "cluster.min_points": "1",
    "cluster.iterations": "4",
    "tokenizer.vocabulary": "400",
}
SHORT_TRAINING = {
    "model.hidden_size": "32",
    "model.layers": "2",
    "model.heads": "2",
    "mixture.update_every_steps": "4",
    "mixture.basis_sequences": "2",
    "mixture.target_sequences": "4",
    "optimizer.warmup_steps": "3",
    "training.steps": "20",
    "training.batch_sequences": "8",
    "training.micro_batch_sequences": "8",
    "training.sequence_tokens": "64",
    "training.log_every_steps": "1",
    "evaluation.every_steps": "10",
    "evaluation.sequences": "8",
    "checkpoint.every_steps": "10",
}
SAMPLE = {  # replaces the sample corpus, which not every checkout has, by the tree of this folder
    "source.path": '"data/redpajama-v2"',
    "targets_below": '"data/targets"',
    "labels.path": '"data/truth.parquet"',
}


def write_workspace(folder: Path) -> Path:
    """Everything but the catalog and the runs, which `build_workspace` makes."""
    _write_rpv2(folder / "data")
    for name, subject in TARGETS.items():
        _write_lines(
            folder / "data" / "targets" / name / "all.jsonl",
            [document(subject, 5000 + i) for i in range(24)],
        )
    _write_lines(
        folder / "data" / "targets" / "mmlu" / "all.jsonl", [question(i) for i in range(30)]
    )
    _write_lines(
        folder / "data" / "corpus" / "part-0.jsonl",
        [document(subject, i) for i in range(60) for subject in TEXTS],
    )
    _write_lines(
        folder / "data" / "target" / "all.jsonl",
        [document("medicine", 6000 + i) for i in range(20)],
    )
    _write_lines(
        folder / "data" / "more" / "part-0.jsonl", [document("law", 7000 + i) for i in range(20)]
    )
    _write_lines(
        folder / "data" / "new_target" / "all.jsonl", [document("law", 8000 + i) for i in range(20)]
    )
    for subject in TEXTS:
        (folder / "texts" / subject).mkdir(parents=True)
        for i in range(20):
            (folder / "texts" / subject / f"{i:02}.txt").write_text(document(subject, 9000 + i))
    (folder / "configs").mkdir()
    for recipe in RECIPES.glob("*.toml"):
        changes = (
            SHORT_TRAINING
            if recipe.name.startswith("train")
            else {}
            if recipe.name.startswith("add")
            else SHORT
        )
        changes = {**changes, **(SAMPLE if recipe.name == "sample.toml" else {})}
        (folder / "configs" / recipe.name).write_text(
            edited(recipe.read_text(encoding="utf-8"), changes)
        )
    return folder


def build_workspace(folder: Path) -> Path:
    """Build `catalogs/sample` with levels 16, 64 and 512, and train two runs on it.

    The runs are `sample-dga` and `sample-natural`.
    """
    from data_catalog.settings import load
    from pipeline.config import Build
    from pipeline.run import build
    from trainer.config import Train
    from trainer.loop import train

    with inside(write_workspace(folder)):
        build(load(Build, Path("configs/sample.toml")))
        for mixer in ("dga", "natural"):
            overrides = [f"mixture.mixer={mixer}", f"out=runs/sample-{mixer}"]
            config = load(Train, Path("configs/train_sample.toml"), overrides)
            assert train(config)
    return folder


@contextmanager
def workspace(made: Path, copy: Path) -> Iterator[Path]:
    """A copy of a workspace, as the current folder."""
    shutil.copytree(made, copy)
    with inside(copy):
        yield copy


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def document(subject: str, i: int) -> str:
    """40 to 160 words on a subject."""
    return " ".join(sentences(TEXTS[subject], i + 13 * k) for k in range(2 + i % 2))


def edited(toml: str, changes: Mapping[str, str]) -> str:
    """A recipe with some of its keys changed, its other lines and comments as they were."""
    left, lines, table = dict(changes), [], ""

    def close() -> None:
        lines.extend(
            f"{key.rpartition('.')[2]} = {left.pop(key)}"
            for key in list(left)
            if key.rpartition(".")[0] == table
        )

    for line in toml.splitlines():
        if line.startswith("["):
            close()
            table = line.strip("[] ").partition("]")[0]
        key = f"{table}.{line.partition('=')[0].strip()}".lstrip(".")
        lines.append(f"{line.partition('=')[0]}= {left.pop(key)}" if key in left else line)
    close()
    for table in dict.fromkeys(key.rpartition(".")[0] for key in left):
        lines.append(f"[{table}]")
        close()
    return "\n".join(lines) + "\n"


def _write_rpv2(data: Path) -> None:
    """Write two files of one snapshot, and the subject of each document.

    One document is short, and one is listed as a copy.
    """
    names, labels = list(TEXTS), []
    for bucket in range(2):
        key = f"2023-06/0000/en_{('head', 'middle')[bucket]}"
        rows = []
        for i in range(bucket, DOCUMENTS, 2):
            subject = names[i % len(names)]
            text = document(subject, i) if i % 40 else "Too short."
            rows.append(
                {
                    "url": f"https://{subject}.example/{i}",
                    "raw_content": text,
                    "source_domain": f"{subject}.example",
                    "language": "en",
                }
            )
            labels.append({"doc_id": f"{key}.json.gz/{len(rows) - 1}", "domain": subject})
        path = data / "redpajama-v2" / "documents" / f"{key}.json.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode() + b"not json\n")
        )
        copies = data / "redpajama-v2" / "duplicates" / f"{key}.duplicates.parquet"
        copies.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"doc_id": [f"{key}.json.gz/{row}" for row in (3, 5)]}), copies)
    pq.write_table(pa.Table.from_pylist(labels), data / "truth.parquet")


def _write_lines(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(
        "".join(
            json.dumps({"id": f"{path.parent.name}-{i}", "text": text}) + "\n"
            for i, text in enumerate(texts)
        )
    )
