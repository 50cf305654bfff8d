"""Views of run folders, in SQL: over those that are named when a catalog is opened, and as table macros over any folder.

A run's folder holds config.json, metrics.jsonl and weights.parquet (tables.WEIGHTS); `docs/training.md` says what is in them.
"""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_catalog.errors import UserError
from data_catalog.format.manifest import is_inside
from data_catalog.format.run_record import RUN_RECORD, read_run_record

if TYPE_CHECKING:
    import duckdb

logger = logging.getLogger(__name__)

FILES = {"configs": RUN_RECORD, "records": "metrics.jsonl", "logs": "weights.parquet"}

READERS = {
    "configs": "read_text({})",
    "records": "read_ndjson_objects({}, filename = true, ignore_errors = true)",
    "logs": "read_parquet({}, filename = true)",
}
# What the views are made of: a table a file, of all runs. {run} makes a run's name of a file's.
TABLES = {
    "configs": "SELECT {run} AS run, parse_dirpath(filename) AS place, TRY_CAST(content AS JSON) AS about FROM {read}",
    # A line that is still being written is no JSON, and is left out.
    "records": "SELECT {run} AS run, json AS record FROM {read} WHERE json ->> '$.kind' IS NOT NULL",
    "logs": "SELECT {run} AS run, * FROM {read}",
}
VIEWS = {  # view -> the tables that it reads, and its SELECT
    "runs": (
        ("configs", "records"),
        """
        SELECT run, place AS folder, about ->> '$.config.target' AS target, about ->> '$.config.mixture.mixer' AS mixer,
               about ->> '$.config.mixture.basis' AS basis, TRY_CAST(about -> '$.level' AS BIGINT) AS level,
               TRY_CAST(about -> '$.basis' AS VARCHAR[]) AS members, TRY_CAST(about -> '$.config.seed' AS BIGINT) AS seed,
               TRY_CAST(about -> '$.config.training.steps' AS BIGINT) AS planned_steps,
               TRY_CAST(about -> '$.config.training.batch_sequences' AS BIGINT) AS batch_sequences,
               TRY_CAST(about -> '$.config.training.sequence_tokens' AS BIGINT) AS sequence_tokens,
               coalesce(finished, false) AS finished, step, TRY_CAST(total -> '$.tokens' AS BIGINT) AS tokens,
               target_validation_loss, target_test_loss, general_loss,
               TRY_CAST(total -> '$.seconds' AS DOUBLE) AS seconds, TRY_CAST(total -> '$.scoring_seconds' AS DOUBLE) AS scoring_seconds,
               TRY_CAST(total -> '$.data_seconds' AS DOUBLE) AS data_seconds, TRY_CAST(total -> '$.repeats' AS DOUBLE) AS repeats,
               TRY_CAST(total -> '$.model_parameters' AS BIGINT) AS model_parameters,
               about ->> '$.catalog' AS catalog, about -> '$.config' AS config
        FROM configs LEFT JOIN (
            SELECT run, bool_or(kind = 'final') AS finished, max(step) AS step,
                   arg_max(loss, step) FILTER (kind = 'eval' AND held_out = 'target/validation') AS target_validation_loss,
                   arg_max(loss, step) FILTER (kind = 'eval' AND held_out = 'target/test') AS target_test_loss,
                   arg_max(loss, step) FILTER (kind = 'eval' AND held_out = 'general') AS general_loss,
                   arg_max(record, (step, kind = 'final')) FILTER (kind IN ('train', 'final')) AS total
            FROM (SELECT run, record ->> '$.kind' AS kind, record ->> '$.set' AS held_out,
                         TRY_CAST(coalesce(record -> '$.step', record -> '$.steps') AS BIGINT) AS step,
                         TRY_CAST(record -> '$.loss' AS DOUBLE) AS loss, record
                  FROM records)
            GROUP BY run) USING (run)
        ORDER BY run""",
    ),
    "metrics": (
        ("records",),
        """
        SELECT run, record ->> '$.kind' AS kind, TRY_CAST(coalesce(record -> '$.step', record -> '$.steps') AS BIGINT) AS step,
               TRY_CAST(record -> '$.stage' AS BIGINT) AS stage, TRY_CAST(record -> '$.tokens' AS BIGINT) AS tokens,
               record ->> '$.set' AS held_out, TRY_CAST(record -> '$.loss' AS DOUBLE) AS loss,
               TRY_CAST(record -> '$.error' AS DOUBLE) AS error, TRY_CAST(record -> '$.bits_per_byte' AS DOUBLE) AS bits_per_byte,
               TRY_CAST(record -> '$.accuracy' AS DOUBLE) AS accuracy, TRY_CAST(record -> '$.lr' AS DOUBLE) AS learning_rate,
               TRY_CAST(record -> '$.gradient_norm' AS DOUBLE) AS gradient_norm, TRY_CAST(record -> '$.seconds' AS DOUBLE) AS seconds,
               TRY_CAST(record -> '$.tokens_per_second' AS DOUBLE) AS tokens_per_second, record
        FROM records""",
    ),
    "weights": (
        ("configs", "logs"),
        """
        SELECT run, stage, first_sequence, unnest(TRY_CAST(about -> '$.basis' AS VARCHAR[])) AS member,
               unnest(alpha) AS alpha, unnest(sampling) AS sampling, unnest(scores) AS score
        FROM logs JOIN configs USING (run)""",
    ),
    "scores": (
        ("configs", "records"),
        """
        SELECT run, TRY_CAST(record -> '$.stage' AS BIGINT) AS stage, TRY_CAST(record -> '$.step' AS BIGINT) AS step,
               unnest(TRY_CAST(about -> '$.basis' AS VARCHAR[])) AS member, unnest(TRY_CAST(record -> '$.scores' AS DOUBLE[])) AS score,
               unnest(TRY_CAST(record -> '$.errors' AS DOUBLE[])) AS error, unnest(TRY_CAST(record -> '$.losses' AS DOUBLE[])) AS loss,
               unnest(TRY_CAST(record -> '$.effective' AS DOUBLE[])) AS effective
        FROM records JOIN configs USING (run) WHERE record ->> '$.kind' = 'update'""",
    ),
}
MACROS = {
    "run_summary": "runs",
    "run_metrics": "metrics",
    "run_weights": "weights",
    "run_scores": "scores",
}


def _select(view: str, run: str, files: Mapping[str, str]) -> str:
    """A view's SELECT; `run` and the `files` of each table are SQL."""
    needed, select = VIEWS[view]
    tables = [
        f"{table} AS ({TABLES[table].format(run=run, read=READERS[table].format(files[table]))})"
        for table in needed
    ]
    return f"WITH {', '.join(tables)} {select}"


def macros() -> Iterator[str]:
    """The statements that make the table macros over a `folder`, of which a glob may name several; a run is called by its path."""
    files = {table: f"rtrim(folder, '/') || '/{name}'" for table, name in FILES.items()}
    for macro, view in MACROS.items():
        yield f"CREATE MACRO {macro}(folder) AS TABLE {_select(view, 'parse_dirpath(filename)', files)}"


def find_runs(patterns: Sequence[str | Path]) -> list[Path]:
    """The run folders that paths and globs name, absolute, each once; what a glob matches beside runs is left out.

    Raises:
        UserError: a path is no run's folder, a glob matches none, or a run's files are links to elsewhere.
    """
    found: dict[Path, None] = {}
    for pattern in map(str, patterns):
        here = (
            [Path(pattern)]
            if Path(pattern).exists()
            else [Path(path) for path in sorted(glob.glob(pattern))]
        )
        runs = [path.resolve() for path in here if (path / FILES["configs"]).is_file()]
        if not runs:
            raise UserError(
                f"runs {pattern}: no run there (a run's folder has {FILES['configs']}); name what `clustermix train` wrote"
            )
        found |= dict.fromkeys(runs)
    for folder in found:
        if outside := [name for name in FILES.values() if not is_inside(folder, name)]:
            raise UserError(
                f"{folder}: {outside[0]} is a link to outside the run's folder; put the file itself there"
            )
    return list(found)


def create_views(
    connection: duckdb.DuckDBPyConnection, folders: Sequence[Path], catalog: str
) -> None:
    """Make the views over the runs in `folders`, as `find_runs` gives them; without weights yet, there is no view of them.

    Args:
        catalog: fingerprint of the catalog that is open. A run on another one is worth a warning: its domains are others.

    Raises:
        UserError: A run's `config.json` is damaged.
    """
    names = labels(folders)
    trained_on = [read_run_record(folder).catalog for folder in folders]
    if others := [name for name, found in zip(names, trained_on, strict=True) if found != catalog]:
        logger.warning(
            "%s: trained on another catalog, or another version of this one; their domains may not be these",
            ", ".join(others),
        )
    # Variables, as paths must not get into SQL; they are escaped, as the readers take them for globs.
    places = {
        name: [glob.escape(str(folder / file)) for folder in folders if (folder / file).is_file()]
        for name, file in FILES.items()
    }
    variables = {**places, "folders": [str(folder) for folder in folders], "labels": names}
    for name, value in variables.items():
        connection.execute(f"SET VARIABLE run_{name} = $value::VARCHAR[]", {"value": value})
    files = {table: f"getvariable('run_{table}')" for table in FILES}
    run = "getvariable('run_labels')[list_position(getvariable('run_folders'), parse_dirpath(filename))]"
    for view, (needed, _) in VIEWS.items():
        if all(places[table] for table in needed):
            connection.execute(f"CREATE VIEW {view} AS {_select(view, run, files)}")


def labels(folders: Sequence[Path]) -> list[str]:
    """The shortest path endings that tell different folders apart."""
    parts = next(
        (
            n
            for n in range(1, 1000)
            if len({folder.parts[-n:] for folder in folders}) == len(folders)
        ),
        0,
    )
    return ["/".join(folder.parts[-parts:]) for folder in folders]
