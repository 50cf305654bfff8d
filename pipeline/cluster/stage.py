"""Train the cluster tree on the embeddings of all parts, and find each document's leaf."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.errors import UserError
from data_catalog.format.accounts import Account, total
from data_catalog.format.file_cache import unfinished_folder
from data_catalog.format.layout import CENTROIDS, Levels
from data_catalog.format.manifest import fingerprint, write_json
from data_catalog.place import Folder
from data_catalog.temporary import in_use, is_used, remove_at_once
from pipeline.cluster.backends.backend import check_backend, load_backend
from pipeline.cluster.search import assign_leaves
from pipeline.cluster.tree import load_tree, save_tree
from pipeline.config import Cluster
from pipeline.embed.stage import read_embeddings, read_identity
from pipeline.parts import Part, make_part

logger = logging.getLogger(__name__)

# Versions of the output:
# 1: k-means at each level.
# 2: held-out documents, polished centroids, radii and search margins.
# 3: `cluster.backend`, and the library that ran in `tree.json`.
VERSION = 3
TREE_DESCRIPTION = "tree.json"
LEAVES_FILE = "leaves.parquet"
MINIMUM_SAMPLE, SAMPLE_PER_LEAF = 2_000_000, 64
# Maximum numbers of held-out documents: for the margins of the search, and to measure it.
_MARGIN_DOCUMENTS, _MEASURE_DOCUMENTS = 8_192, 12_288
_HELD_OUT_DIVISOR = 50  # at most one document in 50 is held out
_RADIUS_QUANTILE = 0.99  # share of a leaf's sample within its radius


def train_tree(embedded: Sequence[Part], folder: Folder, config: Cluster, seed: int) -> Part:
    """Train the tree on a sample of the vectors of all parts.

    Writes `centroids.npz` (see `pipeline.cluster.tree.save_tree`) and `tree.json`. The latter has
    the granularities built and requested, the warnings, the numbers of vectors in total, in the
    sample and held out, the encoder, the library that ran and its device, the `inertia` of the
    sample (mean squared distance `2 - 2 cos` to its leaves) and, by level, the result of
    `pipeline.cluster.measure.measure_tree`.

    Intermediate results are kept until the part is done, beside `folder` in a hidden folder named
    after the fingerprint and the library, or on this machine if `folder` is in a store. A killed
    training resumes from them and gives the same bytes. They need two bytes of disk per number of
    the sample's vectors. Those of other configs are removed too, unless a process that may be alive
    uses them.

    Raises:
        UserError: There are no documents, there are too few for a level and
            `cluster.unsupported` is "refuse", the parts come from different encoders, or this
            machine cannot run `cluster.backend`.
    """
    settings = config.model_dump(mode="json", exclude={"beam", "workers"})
    key = fingerprint("tree", VERSION, settings, seed, [part.fingerprint for part in embedded])
    beside = folder.parent if isinstance(folder, Path) else unfinished_folder(str(folder))
    library = load_backend(config.backend).name
    scratch = beside / f".{folder.name}.{key[:16]}.{library}.unfinished"

    def make(out: Path) -> Account:
        check_backend(config.backend)
        scratch.mkdir(parents=True, exist_ok=True)
        with in_use(scratch):
            return _train(embedded, out, config, seed, scratch)

    part = make_part(folder, key, make)
    for unfinished in beside.glob(f".{folder.name}.*.unfinished"):
        if not is_used(unfinished):
            remove_at_once(unfinished)
    return part


def assign_part(embedded: Part, tree: Part, folder: Folder, config: Cluster) -> Part:
    """Find the leaf of each document of one part.

    Writes `leaves.parquet`: leaf uint32, and distance float32 (squared, `2 - 2 cos`), rows in the
    order of the part's embeddings.

    Raises:
        UserError: The tree was trained on another encoder's vectors.
    """

    def make(out: Path) -> Account:
        made_by = json.loads(tree.file(TREE_DESCRIPTION).read_text(encoding="utf-8"))["encoder"]
        if made_by != read_identity(embedded).comparable:
            raise UserError(
                f"{embedded.place}: not embedded by the encoder of {tree.place}, {made_by}. "
                "Embed the documents with that encoder."
            )
        [vectors] = read_embeddings([embedded])
        leaf, distance = assign_leaves(
            vectors.map(), load_tree(tree.folder), config.beam, config.workers, config.backend
        )
        pq.write_table(
            pa.table({"leaf": leaf, "distance": distance}), out / LEAVES_FILE, compression="zstd"
        )
        return Account(read=embedded.account.kept, kept=embedded.account.kept)

    return make_part(
        folder,
        fingerprint("assign", VERSION, embedded.fingerprint, tree.fingerprint, config.beam),
        make,
    )


def _train(
    embedded: Sequence[Part], out: Path, config: Cluster, seed: int, scratch: Path
) -> Account:
    from pipeline.cluster.grow import grow  # noqa: PLC0415 - torch
    from pipeline.cluster.measure import measure_tree, with_radius  # noqa: PLC0415
    from pipeline.cluster.polish import polish  # noqa: PLC0415
    from pipeline.cluster.sample import draw_sample  # noqa: PLC0415

    vectors = read_embeddings(embedded)
    documents = sum(map(len, vectors))
    levels, warnings = _supported(documents, config)
    held_out = min(_MARGIN_DOCUMENTS + _MEASURE_DOCUMENTS, documents // _HELD_OUT_DIVISOR)
    wanted = sample_size(levels, config)
    sample, unseen = draw_sample(vectors, min(documents - held_out, wanted), held_out, seed)
    if wanted < min(documents, levels.leaves * config.min_points):
        warnings.append(
            f"cluster.sample: {wanted} vectors train {levels.leaves} cells, which is fewer than "
            f"{config.min_points} each. A larger sample gives better centroids."
        )
    for warning in warnings:
        logger.warning(warning)
    backend = load_backend(config.backend)
    logger.info(
        "tree %s: training with %s (%s) on %d of %d vectors, %d held out",
        list(levels.granularities),
        backend.name,
        backend.device,
        len(sample),
        documents,
        held_out,
    )
    x = unseen.read()
    learnt, measured = x[: held_out * 2 // 5], x[held_out * 2 // 5 :]
    grown = grow(sample, levels, config, seed, scratch)
    tree = polish(grown.sample, learnt, grown.centroids, levels, config, scratch)
    tree, counts, inertia = with_radius(
        tree, grown.sample, _RADIUS_QUANTILE, config.workers, config.backend
    )
    save_tree(tree, out / CENTROIDS)
    description = {
        "granularities": levels.granularities,
        "requested": config.granularities,
        "warnings": warnings,
        "documents": documents,
        "sample": len(sample),
        "held_out": held_out,
        "backend": backend.name,
        "device": backend.device,
        "inertia": inertia,
        "levels": measure_tree(tree, counts, measured, config.backend),
        "encoder": read_identity(embedded[0]).comparable,
    }
    write_json(out / TREE_DESCRIPTION, description)
    kept = total(part.account for part in embedded).kept
    return Account(read=kept, kept=kept)


def sample_size(levels: Levels, config: Cluster) -> int:
    """Return the maximum number of vectors that training sees.

    It is `cluster.sample`, or else 64 per leaf and at least two million.
    """
    return (
        max(MINIMUM_SAMPLE, SAMPLE_PER_LEAF * levels.leaves)
        if config.sample is None
        else config.sample
    )


def supported_levels(documents: int, config: Cluster) -> tuple[int, ...]:
    """Return the levels that have `min_points` documents per cell.

    If the first level lacks them too, it is one level of as many cells as have them, at least two.
    """
    built = tuple(k for k in config.granularities if documents >= k * config.min_points)
    return built or (max(documents // max(config.min_points, 1), 2),)


def _supported(documents: int, config: Cluster) -> tuple[Levels, list[str]]:
    """Return the levels to build, and a sentence on those that are left out.

    Raises:
        UserError: There are no documents, or a level has too few and `unsupported` is "refuse".
    """
    if not documents:
        raise UserError(
            "cluster: no documents are left to build domains from. All were unreadable, copies or "
            "dropped by a rule. work/source/*/quarantine.parquet lists what could not be read. "
            "Use more documents or a milder quality.preset."
        )
    requested, least = config.granularities, config.min_points
    built = supported_levels(documents, config)
    advice = (
        f"{documents} documents support at most {documents // max(least, 1)} cells of {least} "
        "documents (cluster.min_points)"
    )
    left_out = [k for k in requested if documents < k * least]
    if not left_out:
        return Levels(built), []
    if config.unsupported == "refuse":
        raise UserError(
            f"cluster.granularities {list(requested)}: {advice}. "
            f'Leave out {left_out}, or set cluster.unsupported = "cap".'
        )
    if len(left_out) < len(requested):
        end = f"The tree ends at level {built[-1]}, without {left_out}."
    else:
        end = f"The tree has one level of {built[0]}, instead of {list(requested)}."
    return Levels(built), [f"{advice}. {end}"]
