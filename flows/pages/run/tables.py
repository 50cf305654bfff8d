"""Tables of the run page: runs, means over seeds, last losses, accuracy, and events."""

import json
from collections.abc import Sequence
from typing import Any

from flows.pages.run.domains import Domains
from flows.pages.run.losses import FinalSet, final_sets
from flows.pages.run.run_folder import Measurement, RunFolder, number, object_at
from flows.pages.run.summary import seed_groups, summarise
from flows.pages.shared.markup import (
    Cell,
    escape_html,
    explained,
    html_table,
    isolated,
    percent,
    run_swatch,
    short_number,
)

COLUMN_HEADINGS = {
    "mixer": "Mixer",
    "target_validation_loss": "Target loss, validation",
    "target_test_loss": "Target loss, test",
    "general_loss": "General loss",
    "tokens": "Tokens",
    "repeats": "Repeats",
    "seconds": "Seconds",
    "rate": "Tokens per second",
    "data_share": "Waiting",
    "scoring_share": "Measuring",
}
COLUMN_MEANINGS = {
    "mixer": "Method that chooses the mixture of domains.",
    "general_loss": "Loss on held-out documents of the whole corpus.",
    "repeats": "Sampled sequences divided by distinct sampled sequences.",
    "data_share": "Share of the time spent waiting for data.",
    "scoring_share": "Share of the time spent measuring the basis members and the target.",
}
LOSS_SETS = {
    "target_validation_loss": "target/validation",
    "target_test_loss": "target/test",
    "general_loss": "general",
}
MAXIMUM_SET_ROWS = 200  # in the table of last losses
MAXIMUM_NAMED_CHANGES = 6  # settings listed per accepted change


def runs_table(runs: Sequence[RunFolder]) -> str:
    """Return a table with a row per run. The lowest loss per target is highlighted."""
    rows = [summarise(run) for run in runs]
    lines = []
    for i, (run, row) in enumerate(zip(runs, rows, strict=True)):
        rivals = [other for other in rows if other["target"] == row["target"]]
        row["rate"] = row["tokens"] / row["seconds"] if row["tokens"] and row["seconds"] else None
        cells: list[str | Cell] = [isolated(row["mixer"])]
        for name in list(COLUMN_HEADINGS)[1:]:
            lowest = (
                min((other[name] for other in rivals if other.get(name) is not None), default=None)
                if name in LOSS_SETS
                else None
            )
            best = lowest is not None and len(rivals) > 1 and row[name] == lowest
            content = _number(name, row[name], run)
            cells.append(Cell(content, "best") if best else content)
        lines.append([f"{run_swatch(i)}{isolated(row['run'])}", *cells])
    headings = [
        explained(heading, COLUMN_MEANINGS[name]) if name in COLUMN_MEANINGS else heading
        for name, heading in COLUMN_HEADINGS.items()
    ]
    return html_table(["Run", *headings], lines, text=(1,), name="runs")


def _number(name: str, value: float | None, run: RunFolder) -> str:
    if value is None:
        return "–"
    if name in LOSS_SETS:
        return loss(run.losses(LOSS_SETS[name])[-1])
    if name in ("scoring_share", "data_share"):
        return f"{value:.1%}"
    return f"{value:.2f}×" if name == "repeats" else short_number(value)


def loss(measurement: Measurement) -> str:
    """Return a loss with its standard error if known, such as `5.352 ± 0.031`."""
    error = (
        ""
        if measurement.error is None
        else f' <span class="error">± {measurement.error:.3f}</span>'
    )
    return f"{measurement.loss:.3f}{error}"


def seeds_table(runs: Sequence[RunFolder]) -> str:
    """Return a table of means over seeds with standard errors. Empty without groups of seeds."""
    rows = []
    for group in seed_groups(runs):
        values = [
            f"{mean[0]:.3f} ± {mean[1]:.3f}" if (mean := group.means[name]) else "–"
            for name in (*LOSS_SETS, "repeats")
        ]
        rows.append(
            [isolated(group.mixer), isolated(group.target), str(len(group.labels)), *values]
        )
    headings = [
        "Mixer",
        "Target",
        "Seeds",
        *(COLUMN_HEADINGS[name] for name in (*LOSS_SETS, "repeats")),
    ]
    return html_table(headings, rows, text=(1,), style="numbers") if rows else ""


def final_table(runs: Sequence[RunFolder], domains: Domains | None) -> str:
    """Return a table with a row per held-out set and a column per run.

    A fine-tuned run has a second column with the losses before fine-tuning.
    """
    sets = [s for s in final_sets(runs, domains) if s.group != "Questions"]
    tuned = {i for i in range(len(runs)) if any(s.before[i] for s in sets)}
    headings = ["Held-out set"]
    for i, run in enumerate(runs):
        headings += (
            [f"{run_swatch(i)}{isolated(run.label)}, before fine-tuning"] if i in tuned else []
        )
        headings.append(f"{run_swatch(i)}{isolated(run.label)}")
    rows = [[isolated(s.label), *_values(s, tuned)] for s in sets[:MAXIMUM_SET_ROWS]]
    if not rows:
        return ""
    left = len(sets) - len(rows)
    more = f'<p class="caption">{left:,} more sets are in metrics.jsonl.</p>' if left else ""
    return html_table(headings, rows, style="numbers") + more


def _values(s: FinalSet, tuned: set[int]) -> list[str]:
    found = []
    for i, last in enumerate(s.last):
        for point in (s.before[i], last) if i in tuned else (last,):
            bits = (
                ""
                if point is None or point.bits is None
                else f'<br><span class="error">{point.bits:.3f} bits per byte</span>'
            )
            found.append("–" if point is None else loss(point) + bits)
    return found


def accuracy_table(runs: Sequence[RunFolder], domains: Domains | None) -> str:
    """Return a table of accuracies during training and from lm-evaluation-harness, or nothing."""
    rows = []
    for s in final_sets(runs, domains):
        if s.group == "Questions":
            values = ["–" if m is None else _accuracy(m.accuracy, m.accuracy_error) for m in s.last]
            rows.append([isolated(s.label), "–", "–", *values])
    for task in dict.fromkeys(task for run in runs for task in run.accuracy):
        found: list[Any] = [run.accuracy.get(task, {}) for run in runs]
        asked, chance = (
            next((value for row in found if (value := number(row, name)) is not None), None)
            for name in ("questions", "chance")
        )
        values = [_accuracy(number(row, "acc"), number(row, "acc_stderr")) for row in found]
        rows.append(
            [
                isolated(task),
                short_number(asked),
                "–" if chance is None else f"{chance:.1%}",
                *values,
            ]
        )
    headings = [
        "Task",
        "Questions",
        "Chance",
        *(f"{run_swatch(i)}{isolated(run.label)}" for i, run in enumerate(runs)),
    ]
    return html_table(headings, rows, style="numbers") if rows else ""


def _accuracy(value: float | None, error: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1%}" + ("" if error is None else f' <span class="error">± {error:.1%}</span>')


def events(runs: Sequence[RunFolder]) -> str:
    """Return a list of accepted changes, adjusted settings and faults of the runs, or nothing."""
    items = [
        f"<li>{isolated(run.label)}: {sentence}</li>" for run in runs for sentence in _events(run)
    ]
    return f'<ul class="events">{"".join(items)}</ul>' if items else ""


def _events(run: RunFolder) -> list[str]:
    found = []
    cadence, budget = (
        object_at(run.about, "cadence"),
        number(object_at(run.config, "mixture"), "overhead_budget"),
    )
    changed = {k: v for k, v in cadence.items() if run.setting("mixture", k) not in (None, v)}
    if changed and budget is not None:
        what = ", ".join(
            f"{escape_html(k)} {escape_html(run.setting('mixture', k))} → {escape_html(v)}"
            for k, v in changed.items()
        )
        found.append(f"settings were adjusted to the overhead budget of {percent(budget)}: {what}.")
    history = run.about.get("history")
    found += (
        [_change(entry) for entry in history if isinstance(entry, dict)]
        if isinstance(history, list)
        else []
    )
    if run.fault is not None:
        found.append(_fault(run, run.fault))
    return found


def _change(entry: dict[str, Any]) -> str:
    step = number(entry, "step")
    where = "before its first checkpoint" if step is None else f"at step {step:,.0f}"
    old, new = entry.get("old"), entry.get("new")
    if isinstance(new, dict):
        before = old if isinstance(old, dict) else {}
        named = [
            f"{_code(name)} {_code(before.get(name))} → {_code(value)}"
            for name, value in list(new.items())[:MAXIMUM_NAMED_CHANGES]
        ]
        what = ", ".join(named) + (
            f" and {len(new) - len(named)} more" if len(new) > len(named) else ""
        )
    else:
        what = f"{_code(old)} → {_code(new)}"
    when = f" ({escape_html(entry['when'])})" if entry.get("when") else ""
    return (
        f"{where}{when} the run resumed with a changed {isolated(entry.get('what', 'config'))}, "
        f"as accepted by the user: {what}."
    )


def _fault(run: RunFolder, fault: dict[str, Any] | Any) -> str:
    step, sequences = number(fault, "step"), fault.get("sequences")
    rows = (
        [row for row in sequences if isinstance(row, dict)] if isinstance(sequences, list) else []
    )
    leaves = ", ".join(dict.fromkeys(escape_html(row.get("leaf")) for row in rows[:3]))
    which = (
        f" in {len(rows)} sequence{'s' if len(rows) != 1 else ''} "
        f"(leaf {leaves}{', …' if len(rows) > 3 else ''})"
        if rows
        else ""
    )
    since = step is not None and run.progress()[0][-1] > step
    where = "" if step is None else f"at step {step:,.0f} "
    after = " The run has resumed since." if since else " The weights are unchanged."
    return (
        f"<strong>{where}the run stopped because the {isolated(fault.get('cause', 'loss'))} was "
        f"not finite</strong>{which}. See fault.json.{after}"
    )


def _code(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return f"<code>{escape_html(text if len(text) <= 60 else text[:59] + '…')}</code>"


def configs(runs: Sequence[RunFolder]) -> str:
    """Return the resolved config of each run, collapsed."""
    found = []
    for i, run in enumerate(runs):
        about = {
            name: value for name, value in run.about.items() if name not in ("basis", "history")
        }
        text = json.dumps(about, indent=2, sort_keys=True, ensure_ascii=False)
        found.append(
            f"<details><summary>{run_swatch(i)}{isolated(run.label)}</summary>"
            f"<pre>{escape_html(text)}</pre></details>"
        )
    return "".join(found)
