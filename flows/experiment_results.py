"""The stored results of an experiment, and what is written from them: tables and a page.

A result is a line of results.jsonl. Tables and the page are computed from such lines alone, so that
they can be made again where the runs are not.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_catalog.errors import UserError
from data_catalog.format.damage import DamagedFileError
from flows.comparison import Result
from flows.experiment_tables import (
    DOMINATED,
    NO_PREDICTIONS,
    TextTable,
    compare,
    overall_table,
    setting_facts,
    setting_table,
    setting_title,
)
from flows.pages.experiment import write_experiment_page
from flows.pages.run.data import read_run
from flows.pages.run.run_folder import RunFolder
from flows.recipe import PlannedRun, Recipe, epochs_alone
from trainer.config import Train

CHOICES = "target/validation/choices"
RESULTS, TABLES, PAGE = "results.jsonl", "results.md", "experiment.html"


def read_result(run: PlannedRun) -> Result:
    """Return the result of a finished run.

    Raises:
        DamagedFileError: A number of the run is missing.
    """
    folder = read_run(run.config.folder, run.config.folder.name)
    final = folder.final
    if final is None:
        raise DamagedFileError(run.config.folder / "metrics.jsonl", "the totals are missing")
    training = run.config.training
    choices = [r for r in folder.of_kind("eval") if r.get("set") == CHOICES]
    return Result(
        variant=run.variant,
        mixer=run.config.mixture.mixer,
        target=run.config.target,
        epochs=run.epochs,
        epochs_alone=round(epochs_alone(run.config), 3),
        seed=run.config.seed,
        steps=training.steps,
        tokens=int(final["tokens"]),
        parameters=int(final["model_parameters"]),
        test=_bits_per_byte(folder, "target/test"),
        validation=_bits_per_byte(folder, "target/validation"),
        general=_bits_per_byte(folder, "general"),
        repeats=round(float(final["repeats"]), 3),
        seconds=round(float(final["seconds"]), 1),
        scoring_seconds=round(float(final["scoring_seconds"]), 1),
        best_validation=min(_all_bits_per_byte(folder, "target/validation")),
        choices=round(float(choices[-1]["loss"]), 5) if choices else None,
        accuracy=round(float(choices[-1]["accuracy"]), 5) if choices else None,
        control=_is_control(run.config),
    )


def _is_control(config: Train) -> bool:
    """Return whether a mixture is learned from something else than the run's target."""
    mixture = config.mixture
    return mixture.shuffled_scores or config.target not in mixture.target_shares(config.target)


def _bits_per_byte(run: RunFolder, name: str) -> float:
    """Return the last loss of a held-out set."""
    return _all_bits_per_byte(run, name)[-1]


def _all_bits_per_byte(run: RunFolder, name: str) -> list[float]:
    """Return the losses of a held-out set, in the order of the evaluations."""
    losses = [r["bits_per_byte"] for r in run.of_kind("eval") if r.get("set") == name]
    if not losses or None in losses:
        raise DamagedFileError(run.folder / "metrics.jsonl", f"the loss on {name} is missing")
    return [round(float(loss), 5) for loss in losses]


def write_results(recipe: Recipe, results: Sequence[Result]) -> None:
    """Write the results, their tables and the page into the experiment's folder."""
    recipe.out.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(result.row()) + "\n" for result in results]
    (recipe.out / RESULTS).write_text("".join(lines), encoding="utf-8")
    of = results, recipe.compared_with
    text = tables(*of, recipe.predicted)
    (recipe.out / TABLES).write_text(text, encoding="utf-8")
    write_experiment_page(*of, recipe.out / PAGE, recipe.predicted, recipe.title)


def load_results(path: Path) -> list[Result]:
    """Read results that `write_results` wrote.

    Raises:
        UserError: The file is missing, or a line is not a result.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [Result(**json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not the results of an experiment ({error}).") from error


def tables(
    results: Sequence[Result], baseline: str, predicted: Mapping[str, float] = NO_PREDICTIONS
) -> str:
    """Return the tables of an experiment as Markdown.

    One table per target and repetition has a row per variant: losses, differences from the
    baseline, distance from the frontier of fixed mixtures, and cost. A last one counts over all
    targets.

    Args:
        results: Results of the runs.
        baseline: Variant that the others are compared with.
        predicted: Expected mean differences of the target loss from the baseline, by variant.
    """
    comparison = compare(results, baseline, predicted)
    parts = [
        part
        for setting in comparison.settings
        for part in (
            f"### {setting_title(setting)}",
            setting_facts(setting),
            _markdown(setting_table(setting, baseline)),
        )
    ]
    parts += ["### All targets and repetitions", DOMINATED, _markdown(overall_table(comparison))]
    return "\n\n".join(parts) + "\n"


def _markdown(table: TextTable) -> str:
    rows = [" | ".join(map(str, row)) for row in table.rows]
    first, *others = [f"| {line} |" for line in (" | ".join(table.headings), *rows)]
    return "\n".join([first, "|" + "---|" * len(table.headings), *others])
