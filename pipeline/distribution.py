"""Distributions over the domains: how a set falls into the clusters, or how far it lies from their centroids."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from data_catalog import tables
from data_catalog.layout import Levels
from data_catalog.manifest import fingerprint, write_json
from data_catalog.records import Account, Tally
from data_catalog.tokens import write_tokens
from pipeline.cluster import Tree, assign, load_tree
from pipeline.config import Build, Target
from pipeline.encoder import identify, load
from pipeline.kmeans import nearest_few
from pipeline.parts import Part, make_part
from pipeline.targets import read_target
from pipeline.tokenize import encode

VERSION = 1
TEMPERATURE = 0.05  # of the distance form, in squared distance between unit vectors (0 to 4)
NEAREST = 16  # centroids the distance form looks at


def hard(domains: Int[np.ndarray, " documents"], size: int) -> Float[np.ndarray, " domains"]:
    """Share of the documents that fall into each domain (importance sampling's histogram)."""
    counts: Float[np.ndarray, " domains"] = np.bincount(domains, minlength=size).astype(np.float64)
    return counts / counts.sum()


def by_distance(
    x: Float[np.ndarray, "documents dim"],
    centroids: Float[np.ndarray, "domains dim"],
    temperature: float = TEMPERATURE,
    nearest: int = NEAREST,
) -> Float[np.ndarray, " domains"]:
    """Mean over documents of `softmax_c(-||x - c||^2 / temperature)` over each document's nearest centroids.

    All vectors have unit length, but for empty domains, whose centroid is zero: they get no weight.
    """
    near, cosine = nearest_few(x, centroids, nearest)
    logits = -(2 - 2 * cosine.astype(np.float64)) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    weights = np.zeros(len(centroids))
    np.add.at(weights, near.ravel(), shares.ravel())
    return weights / weights.sum()


def to_table(name: str, kind: str, level: int, weights: Float[np.ndarray, " domains"]) -> pa.Table:
    domains = np.flatnonzero(weights > 0)
    n = len(domains)
    columns = {"name": [name] * n, "kind": [kind] * n, "level": [level] * n, "domain": domains, "weight": weights[domains]}
    return pa.table(columns, schema=tables.DISTRIBUTIONS)


def corpus_distributions(levels: Levels, train_tokens: Int[np.ndarray, " leaves"]) -> pa.Table:
    """`natural` (in proportion to training tokens) and `uniform` (over domains that hold any), at every level."""
    rows = []
    for k in levels.granularities:
        sizes = train_tokens.reshape(k, -1).sum(axis=1)
        rows.append(to_table("natural", "natural", k, sizes / sizes.sum()))
        rows.append(to_table("uniform", "uniform", k, (sizes > 0) / (sizes > 0).sum()))
    return pa.concat_tables(rows)


def target_part(target: Target, tree_part: Part, tokenizer: Part, folder: Path, config: Build) -> Part:
    """Embed, place and tokenize one target set, and describe its `align` split by distributions at every level.

    Only the `align` split shapes a distribution: what the target is judged on never does.
    """
    documents, quarantine = read_target(target, config)
    identity = identify(config.embed)

    def make(out: Path) -> Account:
        texts = documents["text"].to_pylist()
        x = load(config.embed).encode(texts)
        tree = load_tree(tree_part.folder)
        leaf, distance = assign(x, tree, config.cluster.beam)
        ids = encode(texts, tokenizer)
        table = documents.append_column("leaf", pa.array(leaf)).append_column("distance", pa.array(distance))
        table = table.append_column("tokens", pa.array(np.diff(ids.offsets.to_numpy())))
        pq.write_table(table.select(tables.TARGET.names).cast(tables.TARGET), out / "documents.parquet", compression="zstd")
        pq.write_table(quarantine, out / "quarantine.parquet")
        write_tokens(out / "tokens.arrow", ids)
        aligned = documents["split"].to_numpy(zero_copy_only=False) == "align"
        pq.write_table(_both_kinds(target.name, x[aligned], leaf[aligned], tree), out / "distributions.parquet")
        write_json(out / "target.json", {"name": target.name, "encoder": identity})
        kept = Tally(rows=len(texts), characters=sum(map(len, texts)))
        failed = {reason: Tally(rows=n) for reason, n in Counter(quarantine["reason"].to_pylist()).items()}
        return Account(read=sum(failed.values(), kept), kept=kept, failed=failed)

    texts = fingerprint(documents["doc_id"].to_pylist(), documents["text"].to_pylist(), documents["split"].to_pylist())
    inputs = (target.name, texts, identity, tree_part.fingerprint, tokenizer.fingerprint, config.cluster.beam)
    return make_part(folder, fingerprint("target", VERSION, *inputs), make)


def _both_kinds(name: str, x: Float[np.ndarray, "documents dim"], leaf: Int[np.ndarray, " documents"], tree: Tree) -> pa.Table:
    rows = []
    for k in tree.levels.granularities:
        rows.append(to_table(name, "hard", k, hard(tree.levels.domains(leaf, k), k)))
        rows.append(to_table(name, "distance", k, by_distance(x, tree.centroids[k])))
    return pa.concat_tables(rows)
