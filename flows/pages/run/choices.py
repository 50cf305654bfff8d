"""What each mixer chose in the end, in words: the members of its basis, and the domains that they lead to."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from data_catalog.format.distributions import effective_number
from flows.pages.run.domains import Domains
from flows.pages.run.mixture import drawn_domains, is_over_domains, led_by, member_label, mixed
from flows.pages.run.run_folder import RunFolder
from flows.pages.shared.markup import Cell, html_table, isolated, percent, run_swatch

SENTENCE_MEMBERS = 4  # named in a sentence
TABLE_DOMAINS = 6  # in a table
MINIMUM_DOMAIN_SHARE = 0.001  # share of a domain that is named
DOMINANT_WEIGHT = 0.95  # weight of a member beside which the others need no mention
OPEN_RUNS = 6  # runs whose choice is shown at once; that of the others is folded away


def choices(runs: Sequence[RunFolder], domains: Domains | None) -> str:
    """The section, as markup: a sentence a run, and the largest domains."""
    return f'<div class="choices">{"".join(_choice(i, run, domains, opened=i < OPEN_RUNS) for i, run in enumerate(runs))}</div>'


def _choice(place: int, run: RunFolder, domains: Domains | None, opened: bool) -> str:
    words, largest = " ".join(_sentences(run, domains)), _largest(run, domains)
    summary = f"<summary>{run_swatch(place)}{isolated(run.label)} <span>mixer {isolated(run.mixer)}</span></summary>"
    return f"<details{' open' if opened else ''}>{summary}<p>{words}</p>{largest}</details>"


def _sentences(run: RunFolder, domains: Domains | None) -> list[str]:
    if run.weights is None:
        return ["It has not written any weights yet."]
    last = run.weights.sampling[-1]
    found = [_of_members(run, last, domains)]
    if run.handed_on:
        found += _handed_on(run, last, domains)
    share = _mixture(run, domains)
    if domains is not None and share is not None:
        filled = int((domains.documents > 0).sum())
        found.append(
            f"Of {filled:,} domains this is spread over {effective_number(share):,.1f} (effective number)."
        )
        target = domains.distribution(run.target, "hard")
        corpus = f"{percent(_overlap(share, domains.corpus_share))} with the corpus as it is"
        if target is not None:
            found.append(
                f"It shares {percent(_overlap(share, target))} of its weight with the target's own documents, {corpus}."
            )
        else:
            found.append(f"It shares {corpus}.")
    return found


def _of_members(run: RunFolder, last: Float[np.ndarray, " basis"], domains: Domains | None) -> str:
    if len(last) == 1:
        return f"It drew from one fixed mixture, {isolated(member_label(run, 0, domains))}."
    verb = "ended" if run.final else "is now"
    members = _members(run, last, domains)
    return f"It {verb} with {members} (effective number {effective_number(last):.1f} of {len(last):,} members)."


def _handed_on(
    run: RunFolder, last: Float[np.ndarray, " basis"], domains: Domains | None
) -> list[str]:
    """The weights for a second run, where they are not those drawn last."""
    weights = np.array([run.handed_on.get(name, 0.0) for name in run.basis])
    if np.abs(weights - last).max() < 0.005:
        return []
    return [
        f"To a second run it hands on its average over the run (weights.json): {_members(run, weights, domains)}."
    ]


def _members(run: RunFolder, weights: Float[np.ndarray, " basis"], domains: Domains | None) -> str:
    order = (-weights).argsort(kind="stable")
    top = [int(i) for i in order[:SENTENCE_MEMBERS] if weights[i] >= 0.01] or [int(order[0])]
    return ", ".join(
        f"<strong>{percent(weights[i])}</strong> {isolated(member_label(run, i, domains))}"
        for i in top
    )


def _mixture(run: RunFolder, domains: Domains | None) -> Float[np.ndarray, " domains"] | None:
    """The share of each domain in the mixture that the run sampled last; of a fixed mixture also by what it drew."""
    if domains is None or run.weights is None:
        return None
    found = mixed(run, run.weights.sampling[-1:], domains)
    if found is not None:
        return found[0]
    known = drawn_domains(run, domains)
    return known.share if known is not None and len(run.basis) == 1 else None


def _overlap(p: Float[np.ndarray, " domains"], q: Float[np.ndarray, " domains"]) -> float:
    return float(np.minimum(p, q).sum())


def _largest(run: RunFolder, domains: Domains | None) -> str:
    share = _mixture(run, domains)
    if domains is None or share is None:
        return ""
    corpus = domains.corpus_share
    rows: list[list[str | Cell]] = []
    for d in (-share).argsort(kind="stable")[:TABLE_DOMAINS].tolist():
        if share[d] < MINIMUM_DOMAIN_SHARE:
            break
        long = 80 * share[d] / share.max()
        bar = f'<svg class="part" viewBox="0 0 80 9" aria-hidden="true"><rect width="{long:.1f}" height="9"/></svg>{share[d]:.1%}'
        terms = isolated(", ".join(domains.terms[d])) if domains.terms[d] else "–"
        times = f"{share[d] / corpus[d]:,.1f}×" if corpus[d] > 0 else "–"
        row: list[str | Cell] = [f"domain {d}", terms, Cell(bar, "bar"), times]
        rows.append([*row, _leaders(run, d, domains)] if _mixes(run) else row)
    headings = ["Domain", "Terms", "Share", "Times the corpus"]
    return html_table(
        [*headings, "Led there by"] if _mixes(run) else headings,
        rows,
        text=(1, 2, 4),
        style="choice",
    )


def _mixes(run: RunFolder) -> bool:
    """Whether it is worth saying which members lead to a domain."""
    return (
        run.weights is not None
        and run.weights.sampling[-1].max() < DOMINANT_WEIGHT
        and not is_over_domains(run)
    )


def _leaders(run: RunFolder, domain: int, domains: Domains) -> str:
    parts = led_by(run, domain, domains)
    top = [i for i in (-parts).argsort(kind="stable")[:2] if parts[i] >= 0.05]
    return ", ".join(f"{percent(parts[i])} {isolated(_cut(run.basis[i]))}" for i in top) or "–"


def _cut(name: str, most: int = 40) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
