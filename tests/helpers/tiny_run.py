"""Tables of a small synthetic catalog and folders of runs, as far as the report reads them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.format.layout import Layout
from data_catalog.format.tables import DISTRIBUTIONS, DOMAINS, OFFSETS, WEIGHTS
from tests.helpers.manifests import write_manifest

STAGE_SEQUENCES = 40  # 10 steps of 4 sequences


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    full = [{name: row.get(name) for name in schema.names} for row in rows]
    pq.write_table(pa.Table.from_pylist(full, schema), path)


def write_catalog(
    root: Path, tokens: Sequence[int], terms: Sequence[Sequence[str]], top: int = 2
) -> Path:
    """Write the tables of a catalog with the levels (top, leaves).

    Leaf i has tokens[i] training tokens and a tenth as many held-out tokens. All documents of the
    target `goal` are in leaf 0.
    """
    leaves, total = len(tokens), sum(tokens)
    span = leaves // top
    fine = [
        {
            "level": leaves,
            "domain": i,
            "parent": i // span,
            "documents": n // 10,
            "tokens": n,
            "terms": list(terms[i]),
        }
        for i, n in enumerate(tokens)
    ]
    coarse = [
        {
            "level": top,
            "domain": d,
            "documents": sum(tokens[d * span : (d + 1) * span]) // 10,
            "terms": list(terms[d * span]),
        }
        for d in range(top)
    ]
    layout = Layout(root, 1)
    write_table(layout.domains, [*coarse, *fine], DOMAINS)
    rows = [
        {"leaf": i, "split": split, "tokens": n // part}
        for i, n in enumerate(tokens)
        for split, part in (("train", 1), ("heldout", 10))
    ]
    write_table(layout.offsets, rows, OFFSETS)
    weights = [("natural", "natural", i, n / total) for i, n in enumerate(tokens)]
    weights += [("uniform", "uniform", i, 1 / leaves) for i in range(leaves)]
    weights += [("goal", "hard", 0, 1.0)]
    write_table(
        layout.distributions,
        [
            dict(zip(DISTRIBUTIONS.names, (n, k, leaves, d, w), strict=True))
            for n, k, d, w in weights
        ],
        DISTRIBUTIONS,
    )
    return write_manifest(root, granularities=[top, leaves], targets=["goal"])


def tiny_run_record(
    mixer: str = "dga",
    level: int = 4,
    target: str = "goal",
    basis: Sequence[str] = ("goal", "natural", "uniform"),
) -> dict[str, Any]:
    """Return a valid `config.json` of a run as JSON values."""
    mixture = {
        "mixer": mixer,
        "basis": "distributions",
        "kind": "hard",
        "level": level,
        "temperature": 2.0,
        "file": None,
        "answer_after": "\nAnswer:",
        "update_every_steps": 10,
    }
    return {
        "config": {
            "catalog": "nowhere",
            "out": "nowhere",
            "target": target,
            "mixture": mixture,
            "training": {"steps": 50, "batch_sequences": 4, "sequence_tokens": 100},
        },
        "basis": list(basis),
        "level": level,
        "cadence": {"update_every_steps": 10, "basis_sequences": 8, "target_sequences": 32},
        "sequences": 320,
        "world": 1,
        "history": [],
        "fingerprint": "f00d",
        "catalog": "feed",
        "tokenizer": "00",
    }


def write_run(
    folder: Path,
    *,
    mixer: str = "dga",
    basis: Sequence[str] = ("goal", "natural", "uniform"),
    losses: Sequence[float] = (6.0, 4.0, 3.0, 2.5, 2.25, 2.0),
    level: int = 4,
    usage: Sequence[tuple[int, int]] | None = ((60, 20), (20, 40), (40, 40), (80, 160)),
    catalog: Path | None = None,
    target: str = "goal",
    mixture: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run with 10 steps per stage.

    `losses` are those on the target's validation text at steps 0, 10 and so on. `usage` is (drawn,
    sequences) per leaf, or None for an unfinished run.
    """
    folder.mkdir(parents=True)
    record = tiny_run_record(mixer=mixer, level=level, target=target, basis=basis)
    record["config"] |= {"catalog": str(catalog or "nowhere"), "out": str(folder)}
    record["config"]["mixture"] |= mixture or {}
    (folder / "config.json").write_text(json.dumps(record))

    n = len(basis)
    alpha, rows = np.full(n, 1 / n), []
    for stage in range(max(len(losses) - 1, 1)):
        scores = [0.5] + [0.0] * (n - 1) if stage and n > 1 else None
        if scores:
            alpha = alpha * np.exp(scores)
            alpha /= alpha.sum()
        sampling = 0.5 / n + 0.5 * alpha
        rows.append(
            {
                "stage": stage,
                "first_sequence": stage * STAGE_SEQUENCES,
                "alpha": alpha.tolist(),
                "sampling": sampling.tolist(),
                "scores": scores,
            }
        )
    write_table(folder / "weights.parquet", rows, WEIGHTS)

    steps = [10 * i for i in range(len(losses))]
    last = steps[-1] if steps else 0
    records: list[dict[str, Any]] = []
    for step, loss in zip(steps, losses, strict=True):
        records.append(
            {
                "kind": "eval",
                "step": step,
                "tokens": 400 * step,
                "set": "target/validation",
                "loss": loss,
            }
        )
        records.append(
            {"kind": "eval", "step": step, "tokens": 400 * step, "set": "general", "loss": loss + 1}
        )
        progress = {"seconds": step / 2, "data_seconds": step / 50, "scoring_seconds": step / 10}
        records.append(
            {
                "kind": "train",
                "step": step,
                "loss": loss,
                "lr": 0.1,
                "tokens": 400 * step,
                **progress,
                "gradient_norm": 1.0,
            }
        )
    if usage is not None:
        records.append(
            {
                "kind": "eval",
                "step": last,
                "tokens": 400 * last,
                "set": "target/test",
                "loss": losses[-1] + 0.125,
            }
        )
        ending = {
            "steps": last,
            "tokens": 400 * last,
            "seconds": last / 2,
            "scoring_seconds": last / 10,
            "data_seconds": last / 50,
        }
        records.append({"kind": "final", **ending, "repeats": 1.25, "model_parameters": 1000})
        columns = {
            "leaf": range(len(usage)),
            "drawn_sequences": [d for d, _ in usage],
            "sequences": [s for _, s in usage],
        }
        pq.write_table(
            pa.table({**columns, "epochs": [d / s for d, s in usage]}), folder / "usage.parquet"
        )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def add_records(folder: Path, *records: dict[str, Any]) -> None:
    """Append records to metrics.jsonl."""
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def change_config(folder: Path, **about: Any) -> None:
    """Change config.json. Values under `config` change its sections."""
    found = json.loads((folder / "config.json").read_text())
    for section, values in about.pop("config", {}).items():
        found["config"][section] = (
            {**found["config"].get(section, {}), **values} if isinstance(values, dict) else values
        )
    (folder / "config.json").write_text(json.dumps({**found, **about}))
