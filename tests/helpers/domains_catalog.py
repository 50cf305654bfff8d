"""A tiny catalog with every table that the catalog page reads."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.format import tables
from data_catalog.format.layout import Layout
from data_catalog.format.manifest import NAME, describe_files
from tests.helpers.manifests import ENCODER, write_manifest

TERMS = [["tensor", "layer"], ["socket"], ["plot", "axis"], []]
TOKENS = (1000, 2000, 3000, 4000)


def write_domains_catalog(
    root: Path,
    tokens: tuple[int, ...] = TOKENS,
    top: int = 2,
    text: str = "an example",
    target: str = "law",
) -> Path:
    """Write every table that the page reads, for the levels (top, leaves).

    All strings that come from a corpus are `text`.
    """
    layout, leaves = Layout(root, 1), len(tokens)
    layout.tables.mkdir(parents=True)
    layout.tree.mkdir()
    rows = []
    for level in (top, leaves):
        span = leaves // level
        for d in range(level):
            mine = tokens[d * span : (d + 1) * span]
            domain = {
                "level": level,
                "domain": d,
                "parent": d // (leaves // top) if level == leaves else None,
            }
            size = {
                "documents": sum(mine) // 100,
                "tokens": sum(mine),
                "radius": 0.5,
                "mean_distance": 0.25 * (d + 1),
            }
            words = [*TERMS[d % len(TERMS)], *([] if text == "an example" else [text])]
            sites = [{"name": f"site{d}.org", "share": 0.75}, {"name": None, "share": 0.25}]
            lists = {
                "terms": words,
                "top_sources": sites,
                "languages": [{"name": "en", "share": 1.0}],
                "flags": ["tiny"] if d == 0 else [],
            }
            rows.append(
                {**domain, **size, **lists, "distance_quantiles": [0.1, 0.2, 0.3, 0.4, 0.5]}
            )
    examples = [
        {
            "level": row["level"],
            "domain": row["domain"],
            "kind": kind,
            "rank": rank,
            "doc_id": f"doc {row['domain']}/{rank}",
        }
        | {"distance": 0.5, "source": "site0.org", "snippet": f"{text} {kind} {rank}"}
        for row in rows
        for kind in ("nearest", "typical", "boundary")
        for rank in range(5)
    ]
    weights = [
        (name, name, level, d, w)
        for level in (top, leaves)
        for name, w in (("natural", 0.0), ("uniform", 0.5))
        for d in range(level)
    ]
    natural = {(row["level"], row["domain"]): row["tokens"] / sum(tokens) for row in rows}
    distributions = [
        (n, k, level, d, natural[level, d] if n == "natural" else 1 / level)
        for n, k, level, d, _ in weights
    ]
    distributions += [(target, "hard", level, 1, 1.0) for level in (top, leaves)]
    distributions += [
        (target, "distance", level, d, 1 / level) for level in (top, leaves) for d in range(level)
    ]
    books = [
        ("source", "read", None, 200, 9000),
        ("source", "kept", None, 200, 9000),
        ("quality", "read", None, 200, 9000),
    ]
    books += [
        ("quality", "kept", None, 100, 8000),
        ("quality", "dropped", "gopher.words", 80, 600),
        ("quality", "dropped", text, 20, 400),
    ]
    removed = [
        ("gopher.words", "site0.org", 20, 500, 0.4),
        (text, "site0.org", 5, 100, 0.1),
        ("gopher.words", text, 1, 1, 1.0),
    ]
    content = {
        layout.domains: (rows, tables.DOMAINS),
        layout.tables / "examples.parquet": (examples, tables.EXAMPLES),
        layout.tables / "health.parquet": (
            [{"level": top, "measure": "tiny", "value": 1.0}],
            tables.HEALTH,
        ),
        layout.distributions: (
            [dict(zip(tables.DISTRIBUTIONS.names, row, strict=True)) for row in distributions],
            tables.DISTRIBUTIONS,
        ),
        layout.accounting: (
            [dict(zip(tables.ACCOUNTING.names, (*row, 0), strict=True)) for row in books],
            tables.ACCOUNTING,
        ),
        layout.removed: (
            [dict(zip(tables.REMOVED.names, row, strict=True)) for row in removed],
            tables.REMOVED,
        ),
    }
    offsets = [
        {"leaf": i, "split": "train", "top": 0, "part": 0, "rows": 1, "tokens": n}
        for i, n in enumerate(tokens)
    ]
    content[layout.offsets] = (offsets, tables.OFFSETS)
    for path, (found, schema) in content.items():
        pq.write_table(
            pa.Table.from_pylist(
                [{name: row.get(name) for name in schema.names} for row in found], schema
            ),
            path,
        )
    vectors = np.random.default_rng(0).normal(size=(leaves, 8)).astype(np.float32)
    np.savez(
        layout.tree / "centroids.npz",
        **{str(top): vectors.reshape(top, -1, 8).mean(axis=1), str(leaves): vectors},
    )
    placed = describe_files(root, [*content, layout.tree / "centroids.npz"])
    return write_manifest(
        root,
        granularities=[top, leaves],
        targets=[target] if re.fullmatch(NAME, target) else [],  # others are refused
        documents=sum(tokens) // 100,
        tokens=sum(tokens),
        encoder={**ENCODER, "model": text},
        warnings=[text],
        stage_seconds={"source": 4.0, "quality": 1.0, "tree": 5.0},
        files={name: entry.model_dump() for name, entry in placed.items()},
    )
