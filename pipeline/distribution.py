"""Distributions over the domains: a set's documents by cluster, or by distance to the centroids."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float, Int, Integer

from data_catalog.errors import UserError
from data_catalog.format import tables
from data_catalog.format.accounts import Account, Tally
from data_catalog.format.distributions import effective_number
from data_catalog.format.layout import Levels
from data_catalog.format.manifest import fingerprint, write_json
from data_catalog.format.target_record import TARGET_RECORD, TargetRecord
from data_catalog.format.tokens import write_tokens
from data_catalog.place import Folder
from pipeline.cluster.kmeans import nearest_centroids
from pipeline.cluster.search import assign_leaves
from pipeline.cluster.tree import Tree, load_tree
from pipeline.config import Build, Distributions, Target
from pipeline.embed.encoder import load_encoder
from pipeline.embed.identity import identify
from pipeline.embed.stage import NO_EMBEDDING, NO_EMBEDDING_DETAIL, check_embedded
from pipeline.parts import Part, make_part
from pipeline.shard.tokenize import NO_TOKENS, NO_TOKENS_DETAIL, check_encoded, encode_texts
from pipeline.source.documents import Fault
from pipeline.source.stage import account_of, quarantine_table
from pipeline.source.targets import read_target

# Versions of the output:
# 1: hard and distance histograms of each target.
# 2: histograms are smoothed when the catalog is published; `distributions` is part of the key.
# 3: documents without an embedding or tokens are quarantined, and the quarantine names the stage.
# 4: so are documents that the tokenizer gives no tokens for.
VERSION = 4
_DETAILS = {NO_EMBEDDING: NO_EMBEDDING_DETAIL, NO_TOKENS: NO_TOKENS_DETAIL}
MAXIMUM_MAIN_DOMAINS = 5  # domains listed per target


def smoothed_shares(
    counts: Float[np.ndarray, " leaves"],
    corpus: Float[np.ndarray, " leaves"],
    levels: Levels,
    pseudo_documents: float,
) -> dict[int, Float[np.ndarray, " domains"]]:
    """Return the share of the documents in each domain, by level. Each level sums to 1.

    It is the histogram of importance sampling, drawn toward the level above by Dirichlet smoothing.
    With s pseudo-documents, n the counts and q the corpus's share of domain c in its parent p (its
    tokens divided by the parent's):

        w(c) = w(p) * (n_c + s q_c) / (n_p + s)          w(root) = 1

    So children always add up to their parent, s = 0 is the plain histogram, and a large s gives the
    corpus's own (`natural`). It is the hierarchical Dirichlet model of MacKay and Peto (1995) with
    one s for all levels, and q for their fitted prior. A parent without corpus tokens is not
    smoothed.
    """
    above: Float[np.ndarray, " parents"] = np.ones(1)
    shares = {}
    for k in levels.granularities:
        n, tokens = (
            values.reshape(k, -1).sum(axis=1).reshape(len(above), -1) for values in (counts, corpus)
        )
        in_parent = tokens.sum(axis=1, keepdims=True)
        s = np.where(in_parent > 0, pseudo_documents, 0.0)
        numerator = n + s * tokens / np.maximum(in_parent, 1)
        denominator = n.sum(axis=1, keepdims=True) + s
        above = (
            above[:, None]
            * np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
        ).ravel()
        shares[k] = above
    return shares


def distance_shares(
    x: Float[np.ndarray, "documents dim"],
    centroids: Float[np.ndarray, "domains dim"],
    temperature: float,
    nearest: int,
) -> Float[np.ndarray, " domains"]:
    """Return the mean over documents of `softmax_c(-||x - c||^2 / temperature)`.

    The softmax is over each document's `nearest` centroids. All vectors have unit norm. Empty
    domains, whose centroid is zero, get no weight.
    """
    near, cosine = nearest_centroids(x, centroids, nearest)
    logits = -(2 - 2 * cosine.astype(np.float64)) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    weights = np.zeros(len(centroids))
    np.add.at(weights, near.ravel(), shares.ravel())
    return weights / weights.sum()


def distribution_rows(
    name: str, kind: str, level: int, weights: Float[np.ndarray, " domains"]
) -> pa.Table:
    domains = np.flatnonzero(weights > 0)
    n = len(domains)
    columns = {
        "name": [name] * n,
        "kind": [kind] * n,
        "level": [level] * n,
        "domain": domains,
        "weight": weights[domains],
    }
    return pa.table(columns, schema=tables.DISTRIBUTIONS)


def corpus_distributions(levels: Levels, train_tokens: Int[np.ndarray, " leaves"]) -> pa.Table:
    """Return `natural` and `uniform` at every level.

    `natural` is proportional to training tokens, `uniform` is over domains that have any.

    Raises:
        UserError: There are no training tokens.
    """
    if not train_tokens.any():
        raise UserError(
            "held_out_share: all documents fall into the held-out split and none is left to train "
            "on. Set 0, or use more documents."
        )
    rows = []
    for k in levels.granularities:
        sizes = train_tokens.reshape(k, -1).sum(axis=1)
        rows.append(distribution_rows("natural", "natural", k, sizes / sizes.sum()))
        rows.append(distribution_rows("uniform", "uniform", k, (sizes > 0) / (sizes > 0).sum()))
    return pa.concat_tables(rows)


def all_distributions(
    targets: Mapping[str, pa.Table],
    distances: pa.Table,
    train_tokens: Int[np.ndarray, " leaves"],
    levels: Levels,
    config: Distributions,
) -> pa.Table:
    """Return every distribution of a catalog (tables.DISTRIBUTIONS).

    They are natural, uniform, and the two kinds of each target.

    Args:
        targets: Documents by name, with the columns leaf and split of tables.TARGET. Their hard
            distributions are made here, because smoothing needs the corpus.
        distances: Rows of tables.DISTRIBUTIONS, of which those of kind distance are kept.
        train_tokens: Training tokens per leaf.
        levels: The levels of the tree.
        config: The smoothing.
    """
    rows = [corpus_distributions(levels, train_tokens)]
    for name, documents in targets.items():
        leaves = documents.filter(pc.equal(documents["split"], "align"))["leaf"].to_numpy()
        counts = np.bincount(leaves, minlength=levels.leaves).astype(np.float64)
        smoothed = smoothed_shares(
            counts, train_tokens.astype(np.float64), levels, config.smoothing
        )
        rows += [distribution_rows(name, "hard", k, weights) for k, weights in smoothed.items()]
        rows.append(
            distances.filter(
                pc.and_(pc.equal(distances["name"], name), pc.equal(distances["kind"], "distance"))
            )
        )
    return pa.concat_tables(rows)


def target_table(
    targets: Mapping[str, pa.Table], distributions: pa.Table, domains: pa.Table, levels: Levels
) -> pa.Table:
    """Return tables.TARGETS, one row per target set.

    A document is out of distribution if it lies farther from its leaf's centroid than 95 % of the
    corpus's documents of that leaf, or if the leaf has none. For documents like the corpus's it is
    5 %.
    """
    leaves = domains.filter(pc.equal(domains["level"], levels.leaves))
    far = np.array(
        [
            quantiles[-1] if quantiles else -np.inf
            for quantiles in leaves["distance_quantiles"].to_pylist()
        ]
    )
    rows = []
    for name, documents in targets.items():
        distance = documents["distance"].to_numpy()
        splits = Counter(documents["split"].to_pylist())
        of_target = distributions.filter(
            pc.and_(pc.equal(distributions["name"], name), pc.equal(distributions["kind"], "hard"))
        )
        weights = {
            k: of_target.filter(pc.equal(of_target["level"], k)) for k in levels.granularities
        }
        finest = weights[levels.leaves].sort_by([("weight", "descending"), ("domain", "ascending")])
        rows.append(
            {
                "name": name,
                "documents": documents.num_rows,
                **{split: splits[split] for split in ("align", "validation", "test")},
                "tokens": pc.sum(documents["tokens"]).as_py(),
                "mean_distance": float(distance.mean(dtype=np.float64)),
                "out_of_distribution": float((distance > far[documents["leaf"].to_numpy()]).mean()),
                "effective_domains": [
                    effective_number(table["weight"].to_numpy()) for table in weights.values()
                ],
                "main_domains": finest["domain"].to_pylist()[:MAXIMUM_MAIN_DOMAINS],
            }
        )
    return pa.Table.from_pylist(rows, tables.TARGETS)


def target_part(
    target: Target, tree_part: Part, tokenizer: Part, folder: Folder, config: Build
) -> Part:
    """Embed, place and tokenize one target set, and make its distributions at every level.

    Only the `align` split shapes the distributions, never the splits for evaluation. Documents
    without an embedding or tokens are left out and quarantined.

    Raises:
        UserError: No document can be read, or none of the align split can be used.
    """
    documents, faults = read_target(target, config.source)
    identity = identify(config.embed)

    def make(out: Path) -> Account:
        texts = documents["text"].to_pylist()
        x = load_encoder(config.embed).encode(texts)
        ids = encode_texts(texts, tokenizer)
        doc_ids = documents["doc_id"].to_pylist()
        lost = _unusable(x, ids)
        place = f"target {target.name}"
        without = sum(reason == NO_EMBEDDING for reason in lost.values())
        check_embedded(identity, without, len(texts), place)
        check_encoded(len(lost) - without, len(texts), place)
        used = np.setdiff1d(np.arange(len(texts)), list(lost))
        kept_documents, x, ids = documents.take(used), x[used], ids.take(pa.array(used))
        aligned = kept_documents["split"].to_numpy(zero_copy_only=False) == "align"
        if not aligned.any():
            raise UserError(
                f"{place}: none of its documents in the align split has an embedding and tokens. "
                "Give the target other documents."
            )
        tree = load_tree(tree_part.folder)
        leaf, distance = assign_leaves(x, tree, config.cluster.beam, backend=config.cluster.backend)
        table = kept_documents.append_column("leaf", pa.array(leaf)).append_column(
            "distance", pa.array(distance)
        )
        table = table.append_column("tokens", pa.array(np.diff(ids.offsets.to_numpy())))
        pq.write_table(
            table.select(tables.TARGET.names).cast(tables.TARGET),
            out / "documents.parquet",
            compression="zstd",
        )
        unusable = [
            Fault(place, None, reason, _DETAILS[reason], len(texts[row]), doc_id=doc_ids[row])
            for row, reason in sorted(lost.items())
        ]
        everything = [*faults, *unusable]
        pq.write_table(quarantine_table(everything, "targets"), out / "quarantine.parquet")
        write_tokens(out / "tokens.arrow", ids)
        pq.write_table(
            _own(target.name, x[aligned], leaf[aligned], tree, config.distributions),
            out / "distributions.parquet",
        )
        write_json(out / TARGET_RECORD, TargetRecord(name=target.name, encoder=identity))
        kept = Tally(rows=len(used), characters=sum(len(texts[row]) for row in used.tolist()))
        return account_of(kept, everything)

    texts = fingerprint(
        documents["doc_id"].to_pylist(),
        documents["text"].to_pylist(),
        documents["split"].to_pylist(),
    )
    encoder = (identity.comparable, config.embed.precision, config.embed.backend)
    made_by = (*encoder, tree_part.fingerprint, tokenizer.fingerprint, config.cluster.beam)
    inputs = (
        target.name,
        texts,
        *made_by,
        config.distributions.temperature,
        config.distributions.nearest,
    )
    return make_part(folder, fingerprint("target", VERSION, *inputs), make)


def _unusable(x: Float[np.ndarray, "documents dim"], ids: pa.LargeListArray) -> dict[int, str]:
    """Return the reason why a document cannot be used, by its row, for those that cannot."""
    embedded = np.isfinite(x).all(axis=1)
    encoded = ids.is_valid().to_numpy(zero_copy_only=False)
    lost = np.flatnonzero(~(embedded & encoded)).tolist()
    return {row: NO_TOKENS if embedded[row] else NO_EMBEDDING for row in lost}


def _own(
    name: str,
    x: Float[np.ndarray, "documents dim"],
    leaf: Integer[np.ndarray, " documents"],
    tree: Tree,
    config: Distributions,
) -> pa.Table:
    """Return both kinds of distribution of the target's documents, without smoothing."""
    counts = np.bincount(leaf, minlength=tree.levels.leaves).astype(np.float64)
    plain = smoothed_shares(counts, np.zeros_like(counts), tree.levels, 0)
    rows = [distribution_rows(name, "hard", k, weights) for k, weights in plain.items()]
    for k in tree.levels.granularities:
        rows.append(
            distribution_rows(
                name,
                "distance",
                k,
                distance_shares(x, tree.centroids[k], config.temperature, config.nearest),
            )
        )
    return pa.concat_tables(rows)
