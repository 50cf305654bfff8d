"""SQL views of training runs.

The views cover the run folders that a catalog is opened with. Table macros offer the same columns
for any folder. A run folder contains config.json, metrics.jsonl and weights.parquet
(`tables.WEIGHTS`). See docs/sql.md for the columns.

An interval is the part of a training between two updates of the weights. In the files its key is
`stage`. The views still have a column `stage`, equal to `interval`, which is deprecated.
"""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_catalog.errors import UserError
from data_catalog.format.damage import read_table, reading
from data_catalog.format.manifest import is_inside
from data_catalog.format.run_files import require_run_files
from data_catalog.format.run_record import RUN_RECORD, read_run_record
from data_catalog.format.tables import WEIGHTS
from data_catalog.query.read_only_files import SCHEME
from data_catalog.query.views import literal, path_list

if TYPE_CHECKING:
    import duckdb

logger = logging.getLogger(__name__)

RUN_VIEW_FILES = {"configs": RUN_RECORD, "records": "metrics.jsonl", "logs": "weights.parquet"}

_READERS = {
    "configs": "read_text({})",
    "records": "read_ndjson_objects({}, filename = true, ignore_errors = true)",
    "logs": "read_parquet({}, filename = true)",
}
_FOLDER = f"replace(parse_dirpath(filename), '{SCHEME}', '')"  # the folder of a run's file
# Each table reads one kind of file of all runs. {run} is replaced by an expression that computes a
# run's name from a file's name.
_TABLES = {
    "configs": """
        SELECT {run} AS run, {folder} AS place, TRY_CAST(content AS JSON) AS about
        FROM {read}""",
    # An incomplete last line is not valid JSON. It is skipped.
    "records": """
        SELECT {run} AS run, json AS record FROM {read} WHERE json ->> '$.kind' IS NOT NULL""",
    "logs": "SELECT {run} AS run, * FROM {read}",
}
# Each view with the tables that it reads and its SELECT.
RUN_VIEWS = {
    "runs": (
        ("configs", "records"),
        """
        SELECT run, place AS folder, about ->> '$.config.target' AS target,
               about ->> '$.config.mixture.mixer' AS mixer,
               about ->> '$.config.mixture.basis' AS basis,
               TRY_CAST(about -> '$.level' AS BIGINT) AS level,
               TRY_CAST(about -> '$.basis' AS VARCHAR[]) AS members,
               TRY_CAST(about -> '$.config.seed' AS BIGINT) AS seed,
               TRY_CAST(about -> '$.config.training.steps' AS BIGINT) AS planned_steps,
               TRY_CAST(about -> '$.config.training.batch_sequences' AS BIGINT) AS batch_sequences,
               TRY_CAST(about -> '$.config.training.sequence_tokens' AS BIGINT) AS sequence_tokens,
               coalesce(finished, false) AS finished, step,
               TRY_CAST(total -> '$.tokens' AS BIGINT) AS tokens,
               target_validation_loss, target_test_loss, general_loss,
               TRY_CAST(total -> '$.seconds' AS DOUBLE) AS seconds,
               TRY_CAST(total -> '$.scoring_seconds' AS DOUBLE) AS scoring_seconds,
               TRY_CAST(total -> '$.data_seconds' AS DOUBLE) AS data_seconds,
               TRY_CAST(total -> '$.repeats' AS DOUBLE) AS repeats,
               TRY_CAST(total -> '$.model_parameters' AS BIGINT) AS model_parameters,
               about ->> '$.catalog' AS catalog, about -> '$.config' AS config
        FROM configs LEFT JOIN (
            SELECT run, bool_or(kind = 'final') AS finished, max(step) AS step,
                   arg_max(loss, step) FILTER (kind = 'eval' AND held_out = 'target/validation')
                       AS target_validation_loss,
                   arg_max(loss, step) FILTER (kind = 'eval' AND held_out = 'target/test')
                       AS target_test_loss,
                   arg_max(loss, step) FILTER (kind = 'eval' AND held_out = 'general')
                       AS general_loss,
                   arg_max(record, (step, kind = 'final')) FILTER (kind IN ('train', 'final'))
                       AS total
            FROM (
                SELECT run, record ->> '$.kind' AS kind, record ->> '$.set' AS held_out,
                       TRY_CAST(coalesce(record -> '$.step', record -> '$.steps') AS BIGINT)
                           AS step,
                       TRY_CAST(record -> '$.loss' AS DOUBLE) AS loss, record
                FROM records)
            GROUP BY run) USING (run)
        ORDER BY run""",
    ),
    "metrics": (
        ("records",),
        """
        SELECT run, record ->> '$.kind' AS kind,
               TRY_CAST(coalesce(record -> '$.step', record -> '$.steps') AS BIGINT) AS step,
               TRY_CAST(record -> '$.stage' AS BIGINT) AS interval,
               TRY_CAST(record -> '$.tokens' AS BIGINT) AS tokens,
               record ->> '$.set' AS held_out, TRY_CAST(record -> '$.loss' AS DOUBLE) AS loss,
               TRY_CAST(record -> '$.error' AS DOUBLE) AS error,
               TRY_CAST(record -> '$.bits_per_byte' AS DOUBLE) AS bits_per_byte,
               TRY_CAST(record -> '$.accuracy' AS DOUBLE) AS accuracy,
               TRY_CAST(record -> '$.lr' AS DOUBLE) AS learning_rate,
               TRY_CAST(record -> '$.gradient_norm' AS DOUBLE) AS gradient_norm,
               TRY_CAST(record -> '$.seconds' AS DOUBLE) AS seconds,
               TRY_CAST(record -> '$.tokens_per_second' AS DOUBLE) AS tokens_per_second, record,
               TRY_CAST(record -> '$.stage' AS BIGINT) AS stage
        FROM records""",
    ),
    "weights": (
        ("configs", "logs"),
        """
        SELECT run, stage AS interval, first_sequence,
               unnest(TRY_CAST(about -> '$.basis' AS VARCHAR[])) AS member,
               unnest(alpha) AS alpha, unnest(sampling) AS sampling, unnest(scores) AS score, stage
        FROM logs JOIN configs USING (run)""",
    ),
    "scores": (
        ("configs", "records"),
        """
        SELECT run, TRY_CAST(record -> '$.stage' AS BIGINT) AS interval,
               TRY_CAST(record -> '$.step' AS BIGINT) AS step,
               unnest(TRY_CAST(about -> '$.basis' AS VARCHAR[])) AS member,
               unnest(TRY_CAST(record -> '$.scores' AS DOUBLE[])) AS score,
               unnest(TRY_CAST(record -> '$.errors' AS DOUBLE[])) AS error,
               unnest(TRY_CAST(record -> '$.losses' AS DOUBLE[])) AS loss,
               unnest(TRY_CAST(record -> '$.effective' AS DOUBLE[])) AS effective,
               TRY_CAST(record -> '$.stage' AS BIGINT) AS stage
        FROM records JOIN configs USING (run) WHERE record ->> '$.kind' = 'update'""",
    ),
}
_MACROS = {
    "run_summary": "runs",
    "run_metrics": "metrics",
    "run_weights": "weights",
    "run_scores": "scores",
}


def _select(view: str, run: str, files: Mapping[str, str]) -> str:
    """Return the SELECT of a view. `run` and the `files` of each table are SQL expressions."""
    needed, select = RUN_VIEWS[view]
    readers = {table: _READERS[table].format(files[table]) for table in needed}
    tables = [
        f"{table} AS ({_TABLES[table].format(run=run, folder=_FOLDER, read=readers[table])})"
        for table in needed
    ]
    return f"WITH {', '.join(tables)} {select}"


def run_macros(scheme: str = "") -> Iterator[str]:
    """Yield the statements that create the table macros.

    Each macro takes a `folder`, which may be a glob pattern. Runs are named by their path.

    Args:
        scheme: Beginning of the paths, which `folder` lacks.
    """
    files = {
        table: f"'{scheme}' || rtrim(folder, '/') || '/{name}'"
        for table, name in RUN_VIEW_FILES.items()
    }
    for macro, view in _MACROS.items():
        select = _select(view, _FOLDER, files)
        yield f"CREATE MACRO {macro}(folder) AS TABLE {select}"


def find_run_folders(patterns: Sequence[str | Path]) -> list[Path]:
    """Return the absolute run folders that match paths or glob patterns, without duplicates.

    Matches of a glob pattern that are not run folders are ignored.

    Raises:
        UserError: A path or pattern matches no run folder, or a file of a run is a link to a place
            outside its folder.
    """
    folders: dict[Path, None] = {}
    for pattern in map(str, patterns):
        matches = (
            [Path(pattern)]
            if Path(pattern).exists()
            else [Path(path) for path in sorted(glob.glob(pattern))]
        )
        runs = [path.resolve() for path in matches if (path / RUN_VIEW_FILES["configs"]).is_file()]
        if not runs:
            raise UserError(
                f"runs {pattern}: no run folder found. A run folder contains "
                f"{RUN_VIEW_FILES['configs']}. Give the folder that `clustermix train` wrote."
            )
        folders |= dict.fromkeys(runs)
    for folder in folders:
        if outside := [name for name in RUN_VIEW_FILES.values() if not is_inside(folder, name)]:
            raise UserError(
                f"{folder}: {outside[0]} is a link to a file outside the run folder. "
                "Replace the link with the file."
            )
    return list(folders)


def create_run_views(
    connection: duckdb.DuckDBPyConnection, folders: Sequence[Path], catalog: str
) -> None:
    """Create the views of the runs in `folders`.

    A view is omitted if none of the runs has its files yet. Runs on another catalog cause a
    warning, because their domains differ.

    Args:
        connection: Connection of the open catalog.
        folders: Run folders, as returned by `find_run_folders`.
        catalog: Fingerprint of the open catalog.

    Raises:
        DamagedFileError: A file of a finished run differs from its checksum, or the log of weights
            of an unfinished one cannot be read.
        UserError: A run's `config.json` is damaged.
    """
    names = run_labels(folders)
    catalogs = [read_run_record(folder).catalog for folder in folders]
    for folder in folders:
        require_run_files(folder, tuple(RUN_VIEW_FILES.values()))
        if (log := folder / RUN_VIEW_FILES["logs"]).is_file():
            read_table(log, WEIGHTS)
            with reading(log):  # DuckDB's messages about a damaged footer name no file
                everything = "SELECT count(COLUMNS(*)) FROM read_parquet(?)"
                connection.execute(everything, [f"{SCHEME}{log}"]).fetchall()
    if others := [name for name, found in zip(names, catalogs, strict=True) if found != catalog]:
        logger.warning(
            "%s: trained on another catalog or another version of it. Their domains may differ.",
            ", ".join(others),
        )
    paths = {
        table: [f"{SCHEME}{folder / file}" for folder in folders if (folder / file).is_file()]
        for table, file in RUN_VIEW_FILES.items()
    }
    files = {table: path_list(found) for table, found in paths.items()}
    known, labels = (
        f"([{', '.join(map(literal, texts))}]::VARCHAR[])" for texts in (map(str, folders), names)
    )
    run = f"{labels}[list_position({known}, {_FOLDER})]"
    for view, (needed, _) in RUN_VIEWS.items():
        if all(paths[table] for table in needed):
            connection.execute(f"CREATE VIEW {view} AS {_select(view, run, files)}")


def run_labels(folders: Sequence[Path]) -> list[str]:
    """Return the shortest path endings that are different for all folders."""
    parts = next(
        (
            n
            for n in range(1, 1000)
            if len({folder.parts[-n:] for folder in folders}) == len(folders)
        ),
        0,
    )
    return ["/".join(folder.parts[-parts:]) for folder in folders]
