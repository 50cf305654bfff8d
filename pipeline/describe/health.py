"""Health of the clustering: flags on domains that look wrong, and measures of each level."""

import glob
from collections.abc import Mapping, Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int
from pyarrow.lib import ArrowException

from data_catalog.errors import UserError
from data_catalog.format import tables
from data_catalog.format.layout import Levels
from pipeline.config import Labels

TINY_DOCUMENTS = 5  # a domain with fewer documents is tiny
# At this radius the mean cosine with the centroid is 0.975: the texts are nearly identical.
BOILERPLATE_RADIUS = 0.22
CATCH_ALL_FACTOR = 5  # documents of a catch-all, relative to the mean of its level's domains
CATCH_ALL_QUANTILE = 0.75  # a catch-all exceeds this quantile of its level's radii
ONE_SOURCE_SHARE = 0.95  # the share of the largest source exceeds this
MIXED_LANGUAGE_SHARE = 0.6  # maximum share of the largest language
MINIMUM_JUDGED_DOCUMENTS = 10  # needed to judge a domain's sources and languages
_LISTED_DOMAINS = 5  # maximum number of domains listed per flag

DOMAIN_FLAGS = {  # each flag with its description, which follows the word `domains`
    "empty": "without documents",
    "tiny": f"with fewer than {TINY_DOCUMENTS} documents",
    "boilerplate": "with nearly identical texts (boilerplate)",
    "catch_all": "with many documents and a large radius (catch-all)",
    "one_source": "from one source",
    "mixed_languages": "with mixed languages",
}


def domain_flags(domains: pa.Table) -> list[list[str]]:
    """Return the flags of each domain, in the order of `DOMAIN_FLAGS`.

    `domains` has tables.DOMAINS without flags. A domain that is empty has no other flag. The flags
    tiny, boilerplate and catch_all depend on size and radius. The flags one_source and
    mixed_languages are for domains with at least `MINIMUM_JUDGED_DOCUMENTS` documents, most of
    which name a source or language. The constants of this module are the thresholds.
    """
    level, documents = domains["level"].to_numpy(), domains["documents"].to_numpy()
    radius = domains["radius"].to_numpy(zero_copy_only=False)
    catch_all = np.zeros(len(level), bool)
    for k in np.unique(level):
        filled = (level == k) & (documents > 0)
        if filled.any():
            catch_all |= (
                filled
                & (documents > CATCH_ALL_FACTOR * documents[filled].mean())
                & (radius > np.quantile(radius[filled], CATCH_ALL_QUANTILE))
            )
    judged = documents >= MINIMUM_JUDGED_DOCUMENTS
    source_share, has_source = _largest(domains["top_sources"])
    language_share, has_language = _largest(domains["languages"])
    masks = {
        "tiny": documents < TINY_DOCUMENTS,
        "boilerplate": (documents > 1) & (radius < BOILERPLATE_RADIUS),
        "catch_all": catch_all,
        "one_source": judged & has_source & (source_share > ONE_SOURCE_SHARE),
        "mixed_languages": judged & has_language & (language_share <= MIXED_LANGUAGE_SHARE),
    }
    columns = [np.where(mask, name, "") for name, mask in masks.items()]
    return [
        [name for name in row if name] if n else ["empty"]
        for n, *row in zip(documents.tolist(), *columns, strict=True)
    ]


def _largest(
    shares: pa.ChunkedArray,
) -> tuple[Float[np.ndarray, " domains"], Bool[np.ndarray, " domains"]]:
    """Return the first and largest share of each domain's list, and whether it has a name."""
    first = pc.list_element(
        pc.if_else(
            pc.greater(pc.list_value_length(shares), 0), shares, pa.scalar([None], shares.type)
        ),
        0,
    )
    share = pc.fill_null(pc.struct_field(first, "share"), 0).to_numpy(zero_copy_only=False)
    return share, pc.is_valid(pc.struct_field(first, "name")).to_numpy(zero_copy_only=False)


def health_table(domains: pa.Table, label_agreement: Mapping[int, Mapping[str, float]]) -> pa.Table:
    """Return tables.HEALTH, the measures of each level.

    They are the number of domains, `effective_domains` (exp of the entropy of their sizes),
    `largest_by_mean` (documents of the largest domain, relative to the mean), the number of domains
    with each flag, and the measures in `agreement`.
    """
    rows = []
    for k in dict.fromkeys(domains["level"].to_pylist()):
        of_level = domains.filter(pc.equal(domains["level"], k))
        documents = of_level["documents"].to_numpy()
        share = documents[documents > 0] / max(documents.sum(), 1)
        flagged = of_level["flags"].combine_chunks().flatten().to_pylist()
        values = {
            "domains": float(k),
            "effective_domains": float(np.exp(-(share * np.log(share)).sum())),
            "largest_by_mean": float(documents.max() / max(documents.mean(), 1e-300)),
            **{flag: float(flagged.count(flag)) for flag in DOMAIN_FLAGS},
            **label_agreement.get(k, {}),
        }
        rows += [{"level": k, "measure": name, "value": value} for name, value in values.items()]
    return pa.Table.from_pylist(rows, tables.HEALTH)


def health_sentences(measured: pa.Table, domains: pa.Table) -> list[str]:
    """Return one line per level from a catalog's health and domains tables."""
    by_level: dict[int, dict[str, float]] = {}
    for row in measured.to_pylist():
        by_level.setdefault(row["level"], {})[row["measure"]] = row["value"]
    return [
        _sentence(k, values, domains.filter(pc.equal(domains["level"], k)))
        for k, values in by_level.items()
    ]


def _sentence(level: int, values: Mapping[str, float], domains: pa.Table) -> str:
    flagged = [_list_flagged(flag, domains) for flag in DOMAIN_FLAGS if values[flag]]
    text = (
        f"level {level:,}: the effective number of domains is {values['effective_domains']:,.1f}, "
        f"and the largest domain has {values['largest_by_mean']:.1f} times the mean number of "
        f"documents. Flagged domains: {', '.join(flagged) or 'none'}."
    )
    if "labelled" not in values:
        return text
    if not values["labelled"]:
        return f"{text} No document has a label."
    return (
        f"{text} Agreement with the labels of {values['labelled']:,.0f} documents: "
        f"NMI {values['nmi']:.2f}, purity {values['purity']:.2f}."
    )


def _list_flagged(flag: str, domains: pa.Table) -> str:
    flagged = [
        domain
        for domain, flags in zip(
            domains["domain"].to_pylist(), domains["flags"].to_pylist(), strict=True
        )
        if flag in flags
    ]
    numbers = ", ".join(map(str, flagged[:_LISTED_DOMAINS]))
    if len(flagged) > _LISTED_DOMAINS:
        numbers += ", ..."
    return f"{len(flagged):,} {DOMAIN_FLAGS[flag]} ({numbers})"


def check_labels(labels: Labels | None) -> None:
    """Check labels before any work starts.

    Raises:
        UserError: The labels cannot be read, see `read_labels`.
    """
    if labels is not None:
        read_labels(labels)


def read_labels(labels: Labels) -> pa.Table:
    """Return two columns of text, doc_id and label, one row per labelled document.

    Raises:
        UserError: The file cannot be read, a column is missing, or a document has two labels.
    """
    names = ["doc_id", labels.column]
    try:
        if labels.path.suffix == ".csv":
            options = pa.csv.ConvertOptions(
                include_columns=names,
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=True,
            )
            table = pa.csv.read_csv(labels.path, convert_options=options)
        else:
            present = pq.read_schema(labels.path).names
            missing = [name for name in names if name not in present]
            if missing:
                raise UserError(
                    f"labels.path {labels.path}: no column {missing[0]}. "
                    f"It has the columns {', '.join(present)}."
                )
            table = pq.read_table(labels.path, columns=names)
    except (ArrowException, OSError) as error:
        raise UserError(
            f"labels.path {labels.path}: cannot be read ({error}). "
            f"Give a Parquet or .csv file with the columns doc_id and {labels.column}."
        ) from error
    table = pa.table(
        [column.cast(pa.string()) for column in table.select(names).columns], ["doc_id", "label"]
    ).drop_null()
    documents = pc.count_distinct(table["doc_id"]).as_py()
    if documents != table.num_rows:
        raise UserError(
            f"labels.path {labels.path}: {table.num_rows} rows for {documents} documents. "
            "Give each document one label."
        )
    return table


def label_agreement(
    files: Sequence[str], labels: pa.Table, levels: Levels
) -> dict[int, dict[str, float]]:
    """Return by granularity the agreement of the domains with known labels.

    `labelled` is the number of documents in `files` with a label. `nmi` and `purity` are measured
    on them.
    """
    with duckdb.connect() as connection:
        connection.register("labels", labels)
        documents = connection.read_parquet(
            [glob.escape(file) for file in files], hive_partitioning=False
        )
        documents.create_view("documents")
        counts = connection.sql(
            """SELECT leaf, label, count(*) AS n FROM documents JOIN labels USING (doc_id)
            GROUP BY ALL ORDER BY ALL"""
        ).to_arrow_table()
    labelled = float(pc.sum(counts["n"]).as_py() or 0)
    if not labelled:
        return {k: {"labelled": 0.0} for k in levels.granularities}
    label = counts["label"].combine_chunks().dictionary_encode().indices.to_numpy()
    agreement = compare_labels(
        label, counts["leaf"].to_numpy().astype(np.int64), levels, counts["n"].to_numpy()
    )
    return {
        k: {"labelled": labelled, "nmi": nmi, "purity": purity}
        for k, (nmi, purity) in agreement.items()
    }


def compare_labels(
    labels: Sequence[str] | Int[np.ndarray, " n"],
    leaves: Int[np.ndarray, " n"],
    levels: Levels,
    counts: Int[np.ndarray, " n"] | None = None,
) -> dict[int, tuple[float, float]]:
    """Return by granularity the agreement of domains with labels of documents: (NMI, purity).

    Row i represents `counts[i]` documents, or one if `counts` is None. Normalised mutual
    information is I(domain; label) divided by the mean of the two entropies. Purity is the share
    of documents whose label is the most frequent one of their domain. It grows with the number of
    domains.
    """
    from scipy.sparse import coo_matrix  # noqa: PLC0415
    from scipy.stats import entropy  # noqa: PLC0415
    from sklearn.metrics import mutual_info_score  # noqa: PLC0415

    classes, label = np.unique(np.asarray(labels), return_inverse=True)
    weights = np.ones(len(labels), np.int64) if counts is None else counts
    agreement = {}
    for k in levels.granularities:
        domains, place = np.unique(levels.domains(leaves, k), return_inverse=True)
        table = coo_matrix((weights, (place, label)), shape=(len(domains), len(classes))).tocsr()
        entropies = entropy(table.sum(axis=0).A1) + entropy(table.sum(axis=1).A1)
        nmi = (
            min(2 * mutual_info_score(None, None, contingency=table) / entropies, 1.0)
            if entropies > 0
            else 1.0
        )
        agreement[k] = (float(nmi), float(table.max(axis=1).sum() / table.sum()))
    return agreement
