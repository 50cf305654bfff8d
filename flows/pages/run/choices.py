"""The final mixtures: sentences per run, and one table of the largest domains of all runs."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from data_catalog.format.distributions import effective_number
from flows.pages.run.domains import Domains
from flows.pages.run.mixture import drawn_domains, is_over_domains, led_by, member_label, mixed
from flows.pages.run.run_folder import RunFolder
from flows.pages.shared.markup import Cell, html_table, isolated, percent, run_swatch

SENTENCE_MEMBERS = 4  # maximum number of members in a sentence
RUN_DOMAINS = 6  # maximum number of domains that a run contributes to the table
MAXIMUM_ROWS = 24  # of the table
BAR = 80  # width in pixels of the longest bar
MINIMUM_DOMAIN_SHARE = 0.001  # of a domain in the table
DOMINANT_WEIGHT = 0.95  # with a larger weight of one member, the others are not mentioned
OPEN_RUNS = 6  # number of runs that are not collapsed


def choices(runs: Sequence[RunFolder], domains: Domains | None) -> str:
    """Return the section as HTML: a table of the largest domains, and sentences per run."""
    sections = [_choice(i, run, domains, opened=i < OPEN_RUNS) for i, run in enumerate(runs)]
    return f'{_largest(runs, domains)}<div class="choices">{"".join(sections)}</div>'


def _choice(place: int, run: RunFolder, domains: Domains | None, opened: bool) -> str:
    mixer = "" if run.mixer in run.label else f" <span>mixer {isolated(run.mixer)}</span>"
    summary = f"<summary>{run_swatch(place)}{isolated(run.label)}{mixer}</summary>"
    words = " ".join(_sentences(run, domains))
    return f"<details{' open' if opened else ''}>{summary}<p>{words}</p></details>"


def _sentences(run: RunFolder, domains: Domains | None) -> list[str]:
    if run.weights is None:
        return ["No weights have been written yet."]
    last = run.weights.sampling[-1]
    sentences = [_of_members(run, last, domains)]
    if run.average_weights:
        sentences += _average_weights(run, last, domains)
    share = _mixture(run, domains)
    if domains is not None and share is not None:
        filled = int((domains.documents > 0).sum())
        sentences.append(
            f"The effective number of domains is {effective_number(share):,.1f} of {filled:,}."
        )
        target = domains.distribution(run.target, "hard")
        corpus = f"{percent(_overlap(share, domains.corpus_share))} with the corpus"
        if target is not None:
            sentences.append(
                f"The mixture overlaps {percent(_overlap(share, target))} with the documents of "
                f"the target, and {corpus}."
            )
        else:
            sentences.append(f"The mixture overlaps {corpus}.")
    return sentences


def _of_members(run: RunFolder, last: Float[np.ndarray, " basis"], domains: Domains | None) -> str:
    if len(last) == 1:
        return f"Fixed mixture: {isolated(member_label(run, 0, domains))}."
    when = "Final" if run.final else "Current"
    members = _members(run, last, domains)
    return (
        f"{when} weights: {members}. The effective number of members is "
        f"{effective_number(last):.1f} of {len(last):,}."
    )


def _average_weights(
    run: RunFolder, last: Float[np.ndarray, " basis"], domains: Domains | None
) -> list[str]:
    """Return a sentence on the weights in weights.json if they differ from the final ones."""
    weights = np.array([run.average_weights.get(name, 0.0) for name in run.basis])
    if np.abs(weights - last).max() < 0.005:
        return []
    return [f"Average weights over the run (weights.json): {_members(run, weights, domains)}."]


def _members(run: RunFolder, weights: Float[np.ndarray, " basis"], domains: Domains | None) -> str:
    order = (-weights).argsort(kind="stable")
    top = [int(i) for i in order[:SENTENCE_MEMBERS] if weights[i] >= 0.01] or [int(order[0])]
    return ", ".join(
        f"<strong>{percent(weights[i])}</strong> {isolated(member_label(run, i, domains))}"
        for i in top
    )


def _mixture(run: RunFolder, domains: Domains | None) -> Float[np.ndarray, " domains"] | None:
    """Return the share of each domain in the mixture that the run sampled last.

    For a fixed mixture that the catalog does not describe, return the shares that were sampled.
    """
    if domains is None or run.weights is None:
        return None
    shares = mixed(run, run.weights.sampling[-1:], domains)
    if shares is not None:
        return shares[0]
    known = drawn_domains(run, domains)
    return known.share if known is not None and len(run.basis) == 1 else None


def _overlap(p: Float[np.ndarray, " domains"], q: Float[np.ndarray, " domains"]) -> float:
    return float(np.minimum(p, q).sum())


def _largest(runs: Sequence[RunFolder], domains: Domains | None) -> str:
    """Return a table with a row per domain, and a column for the corpus and for each run.

    All bars have one scale.
    """
    found = {} if domains is None else {i: _mixture(run, domains) for i, run in enumerate(runs)}
    shares = {i: share for i, share in found.items() if share is not None}
    if domains is None or not shares:
        return ""
    rows = _rows(list(shares.values()))
    corpus = domains.corpus_share
    longest = max(share[rows].max() for share in (corpus, *shares.values()))
    lines: list[list[str | Cell]] = []
    for d in rows:
        terms = isolated(", ".join(domains.terms[d])) if domains.terms[d] else "no terms"
        cells = [Cell(_bar(corpus[d], longest, "rest"), "bar")]
        for i, share in shares.items():
            times = f"{share[d] / corpus[d]:,.1f}× corpus" if corpus[d] > 0 else "not in corpus"
            members = _leaders(runs[i], d, domains) if _mixes(runs[i]) else ""
            notes = times + (f"<br>{members}" if members else "")
            bar = _bar(share[d], longest, f"k{i % 8}")
            cells.append(Cell(f'{bar}<span class="error">{notes}</span>', "bar"))
        lines.append([f'{terms} <span class="error">domain {d}</span>', *cells])
    names = [f"{run_swatch(i)}{isolated(runs[i].label)}" for i in shares]
    bars = tuple(range(1, len(names) + 2))
    return html_table(["Domain", "Corpus", *names], lines, text=bars, style="choice")


def _rows(shares: Sequence[Float[np.ndarray, " domains"]]) -> list[int]:
    """Return the largest domains of every run, those with the largest share first."""
    chosen: dict[int, float] = {}
    for share in shares:
        for d in (-share).argsort(kind="stable")[:RUN_DOMAINS].tolist():
            if share[d] >= MINIMUM_DOMAIN_SHARE:
                chosen[d] = max(chosen.get(d, 0.0), float(share[d]))
    return sorted(chosen, key=lambda d: (-chosen[d], d))[:MAXIMUM_ROWS]


def _bar(share: float, longest: float, style: str) -> str:
    """Return a bar in the colour of a style, followed by the share."""
    width = BAR * share / longest if longest else 0
    return (
        f'<svg class="part {style}" viewBox="0 0 {BAR} 9" aria-hidden="true">'
        f'<rect width="{width:.1f}" height="9"/></svg>{share:.1%}'
    )


def _mixes(run: RunFolder) -> bool:
    """Return whether to list the members that contribute to each domain."""
    return (
        run.weights is not None
        and run.weights.sampling[-1].max() < DOMINANT_WEIGHT
        and not is_over_domains(run)
    )


def _leaders(run: RunFolder, domain: int, domains: Domains) -> str:
    parts = led_by(run, domain, domains)
    top = [i for i in (-parts).argsort(kind="stable")[:2] if parts[i] >= 0.05]
    return ", ".join(f"{percent(parts[i])} {isolated(_cut(run.basis[i]))}" for i in top)


def _cut(name: str, maximum: int = 40) -> str:
    return name if len(name) <= maximum else name[: maximum - 1] + "…"
