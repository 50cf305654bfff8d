"""The stored results of an experiment, and its tables.

A result is a line of results.jsonl. Tables are computed from such lines alone, so that they can be
computed again where the runs are not.
"""

import json
from collections.abc import Sequence
from math import isnan
from pathlib import Path

from data_catalog.errors import UserError
from data_catalog.format.damage import DamagedFileError
from flows.comparison import (
    Difference,
    Result,
    best_fixed,
    by_setting,
    dominated_by,
    frontier_gap,
    holm,
    mean_and_error,
    paired,
)
from flows.pages.run.data import read_run
from flows.pages.run.run_folder import RunFolder
from flows.recipe import PlannedRun, Recipe, epochs_alone

RESULTS, TABLES = "results.jsonl", "results.md"


def read_result(run: PlannedRun) -> Result:
    """Return the result of a finished run.

    Raises:
        DamagedFileError: A number of the run is missing.
    """
    folder = read_run(run.config.out, run.config.out.name)
    final = folder.final
    if final is None:
        raise DamagedFileError(run.config.out / "metrics.jsonl", "the totals are missing")
    training = run.config.training
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
    )


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
    """Write the results and their tables into the experiment's folder."""
    recipe.out.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(result.row()) + "\n" for result in results]
    (recipe.out / RESULTS).write_text("".join(lines), encoding="utf-8")
    (recipe.out / TABLES).write_text(tables(results, recipe.compared_with), encoding="utf-8")


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


def tables(results: Sequence[Result], baseline: str) -> str:
    """Return the tables of an experiment as Markdown.

    One table per target and repetition has a row per variant: losses, differences from the
    baseline, distance from the frontier of fixed mixtures, and cost. A last one counts over all
    targets.
    """
    parts = [_setting_table(group, baseline) for group in by_setting(results).values()]
    return "\n\n".join([*parts, _summary(results, baseline)]) + "\n"


def _setting_table(results: Sequence[Result], baseline: str) -> str:
    """Return the table of one target and repetition."""
    first = results[0]
    by_variant = {name: [r for r in results if r.variant == name] for name in _variants(results)}
    differences = {name: paired(results, name, baseline, "test") for name in by_variant}
    adjusted = holm([d.p_value if d else float("nan") for d in differences.values()])
    best = best_fixed(results)
    lines = [
        f"### {first.target}, {first.epochs_alone:.3g} epochs of its domains if drawn alone",
        f"{max(r.tokens for r in results) / 1e6:.2f} M tokens per run, {first.parameters:,} "
        f"parameters, seeds {', '.join(str(seed) for seed in sorted({r.seed for r in results}))}. "
        "Bits per byte.",
        "\n".join(
            [
                f"| variant | target | − {baseline} | p (Holm) | general | gap to the frontier "
                f"| − best fixed ({best}) | repeats | scoring |",
                "|" + "---|" * 9,
                *(
                    _row(name, by_variant[name], results, differences[name], p, best)
                    for name, p in zip(by_variant, adjusted, strict=True)
                ),
            ]
        ),
    ]
    return "\n\n".join(lines)


def _row(
    name: str,
    own: Sequence[Result],
    results: Sequence[Result],
    difference: Difference | None,
    p_value: float,
    best: str | None,
) -> str:
    """Return the row of one variant."""
    gaps = mean_and_error(
        frontier_gap(r, [other for other in results if other.seed == r.seed]) for r in own
    )
    from_best = paired(results, name, best, "test") if best else None
    mean = [mean_and_error(getattr(r, key) for r in own) for key in ("test", "general")]
    cells = [
        name,
        _text(mean[0]),
        _text(difference, sign=True),
        "" if isnan(p_value) else f"{p_value:.3f}",
        _text(mean[1]),
        _text(gaps, sign=True),
        _text(from_best, sign=True),
        f"{mean_and_error(r.repeats for r in own).mean:.2f}",
        f"{sum(r.scoring_seconds for r in own) / sum(r.seconds for r in own):.0%}",
    ]
    return f"| {' | '.join(cells)} |"


def _summary(results: Sequence[Result], baseline: str) -> str:
    """Return the table that counts over targets and repetitions."""
    groups = by_setting(results)
    lines = [
        "### All targets and repetitions",
        "A variant is dominated if a fixed mixture is better on the target and on general text, "
        "both by at least two standard errors.",
        "| variant | mean − " + baseline + " | mean gap to the frontier | settings in which it is "
        "dominated |\n|---|---|---|---|",
    ]
    for name in _variants(results):
        inside = [group for group in groups.values() if any(r.variant == name for r in group)]
        differences = [d for g in inside if (d := paired(g, name, baseline, "test"))]
        gaps = [
            frontier_gap(r, [other for other in group if other.seed == r.seed])
            for group in inside
            for r in group
            if r.variant == name
        ]
        dominated = [
            f"{group[0].target} at {group[0].epochs_alone:.3g} ({', '.join(by)})"
            for group in inside
            if (by := dominated_by(group, name))
        ]
        lines[-1] += (
            f"\n| {name} | {_text(mean_and_error(d.mean for d in differences), sign=True)} "
            f"| {_text(mean_and_error(gaps), sign=True)} "
            f"| {len(dominated)} of {len(inside)}{': ' if dominated else ''}"
            f"{'; '.join(dominated)} |"
        )
    return "\n\n".join(lines)


def _variants(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result.variant for result in results))


def _text(value: Difference | None, sign: bool = False) -> str:
    if value is None or isnan(value.mean):
        return ""
    mean = f"{value.mean:+.4f}" if sign else f"{value.mean:.4f}"
    return mean if isnan(value.error) else f"{mean} ± {value.error:.4f}"
