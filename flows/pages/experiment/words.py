"""Sentences of the experiment page: its size, its findings, and what limits them."""

from collections.abc import Iterable, Sequence
from math import isnan

from flows.comparison import Difference, Result
from flows.experiment_tables import Comparison, variants_of
from flows.pages.experiment.marks import VariantMark
from flows.pages.shared.markup import escape_html, isolated, short_number

MAXIMUM_NAMES = 6  # names in a sentence


def facts(results: Sequence[Result], baseline: str) -> str:
    """Return a paragraph on the size of the experiment as HTML."""
    variants, targets = variants_of(results), list(dict.fromkeys(r.target for r in results))
    seeds = sorted({r.seed for r in results})
    epochs = sorted({r.epochs for r in results if r.epochs is not None})
    axes = [
        f"{_counted(len(targets), 'target')} ({_names(targets)})",
        *(
            [f"{_counted(len(epochs), 'repetition')} ({_joined(f'{e:g}' for e in epochs)} epochs)"]
            if epochs
            else []
        ),
        f"{_counted(len(seeds), 'seed')} ({_joined(map(escape_html, seeds))})",
    ]
    repetition = (
        " A repetition is the number of epochs of the target's domains in a run that draws from "
        "the target's own distribution alone."
        if epochs
        else ""
    )
    return (
        f"<strong>{_counted(len(results), 'run')}</strong> of "
        f"{_counted(len(variants), 'variant')}, with {_joined(axes)}.{repetition} A run trains a "
        f"model of {_range(r.parameters for r in results)} parameters on "
        f"{_range(r.tokens for r in results)} tokens, which are "
        f"{_range(r.tokens / r.parameters for r in results)} tokens per parameter. Variants are "
        f"compared with {isolated(baseline)}, in pairs of runs with the same target, repetition "
        "and seed."
    )


def findings(comparison: Comparison, marks: Sequence[VariantMark]) -> list[str]:
    """Return a paragraph on the lowest losses as HTML. Empty if nothing can be compared."""
    complete = [row for row in comparison.summary if row.settings == len(comparison.settings)]
    learned = {mark.variant for mark in marks if mark.role == "learned"}
    differences = {
        row.variant: row.from_baseline
        for row in complete
        if row.from_baseline is not None and row.variant != comparison.baseline
    }
    gaps = {r.variant: r for r in complete if r.variant in learned and not isnan(r.gap.mean)}
    sentences = []
    if differences:
        name = min(differences, key=lambda name: differences[name].mean)
        sentences.append(
            f"<strong>{isolated(name)}</strong> has the lowest mean loss on the targets, "
            f"<strong>{_size(differences[name])} bits per byte</strong> lower than that of "
            f"{isolated(comparison.baseline)}."
            if differences[name].mean < 0
            else "No variant has a lower mean loss on the targets than "
            f"<strong>{isolated(comparison.baseline)}</strong>."
        )
    if gaps:
        row = min(gaps.values(), key=lambda row: row.gap.mean)
        first = (
            f"The learned mixture <strong>{isolated(row.variant)}</strong> has a"
            if len(learned) == 1
            else f"Of the learned mixtures, <strong>{isolated(row.variant)}</strong> has the lowest"
        )
        sentences.append(
            f"{first} mean gap to the frontier of the fixed mixtures"
            f"{' of' if len(learned) == 1 else ','} <strong>{row.gap.mean:+.4f}"
            f"{_error(row.gap)} bits per byte</strong>."
        )
        if difference := differences.get(row.variant):
            side = "lower" if difference.mean < 0 else "higher"
            sentences.append(
                f"Its mean loss on the targets is {_size(difference)} {side} than that of "
                f"{isolated(comparison.baseline)}."
            )
        sentences.append(
            f"Fixed mixtures dominate it in {len(row.dominated)} of {row.settings} settings."
            if row.dominated
            else "No fixed mixture dominates it."
        )
    return [" ".join(sentences)] if sentences else []


def remarks(results: Sequence[Result], baseline: str) -> list[str]:
    """Return notes on what limits the comparison as HTML."""
    seeds, variants = {r.seed for r in results}, variants_of(results)
    planned = len(variants) * len({r.setting for r in results}) * len(seeds)
    sentences = []
    if len(results) < planned:
        sentences.append(
            f"{planned - len(results):,} of {planned:,} combinations of variant, target, "
            "repetition and seed have no result. Means are over the others."
        )
    if len(seeds) == 1:
        sentences.append(
            "There is a single seed. The variation between seeds is unknown, so losses have no "
            "standard errors."
        )
    if baseline not in variants:
        sentences.append(f"The baseline {isolated(baseline)} has no results.")
    if not any(r.role == "fixed" for r in results):
        sentences.append("There is no fixed mixture, and therefore no frontier.")
    return sentences


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _joined(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _names(names: Sequence[str]) -> str:
    if len(names) > MAXIMUM_NAMES:
        return f"{', '.join(map(isolated, names[:MAXIMUM_NAMES]))}, …"
    return _joined(map(isolated, names))


def _range(values: Iterable[float]) -> str:
    """Return a number, or the smallest and the largest of several."""
    texts = [short_number(value) for value in sorted(values)]
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def _size(value: Difference) -> str:
    """Return a difference without its sign."""
    return f"{abs(value.mean):.4f}{_error(value)}"


def _error(value: Difference) -> str:
    return "" if isnan(value.error) else f" ± {value.error:.4f}"
