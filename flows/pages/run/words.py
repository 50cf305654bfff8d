"""What the page says in sentences: who is best, and what a reader must know before comparing."""

from collections.abc import Sequence
from typing import Any

from flows.pages.run.domains import Domains
from flows.pages.run.mixture import drawn_domains
from flows.pages.run.run_folder import TEST, VALIDATION, RunFolder, number
from flows.pages.run.summary import seed_groups, summarise
from flows.pages.shared.markup import isolated, percent, short_number

MAXIMUM_TITLE_RUNS = 4  # runs in a title


def title(runs: Sequence[RunFolder]) -> str:
    """Plain text."""
    if len(runs) <= MAXIMUM_TITLE_RUNS:
        return " · ".join(run.label for run in runs)
    return f"{len(runs)} runs: {', '.join(run.label for run in runs[:MAXIMUM_TITLE_RUNS])}, …"


def summary(runs: Sequence[RunFolder]) -> list[str]:
    """One sentence a target, as markup."""
    return [
        _ranking(target, [run for run in runs if run.target == target])
        for target in dict.fromkeys(run.target for run in runs)
    ]


def _ranking(target: str, runs: Sequence[RunFolder]) -> str:
    """Who has the lowest loss on one target, by how much, after how many tokens."""
    rows = [
        {**summarise(run), "test": _last(run, TEST), "validation": _last(run, VALIDATION)}
        for run in runs
    ]
    split = "test" if all(row["test"] for row in rows) else "validation"
    known = sorted((row for row in rows if row[split]), key=lambda row: row[split].loss)
    if not known:
        return f"No held-out loss on the target {isolated(target)} has been measured yet."
    best, *others = known
    words = f"<strong>{isolated(best['run'])}</strong> (mixer {isolated(best['mixer'])}) "
    where = f"on the {split} text of the target {isolated(target)} after {short_number(best['tokens'])} tokens"
    loss = f"<strong>{_value(best[split])} nats per token</strong> {where}"
    if not others:
        return f"{words}reaches a loss of {loss}."
    gap = others[0][split].loss - best[split].loss
    if gap < 0.0005:  # not visible in what the page prints
        return f"{words}and {isolated(others[0]['run'])} have the same lowest loss, {loss}."
    below = f"{gap:.3f} ({gap / others[0][split].loss:.1%}) below the next, {isolated(others[0]['run'])}"
    last = (
        f", and {others[-1][split].loss - best[split].loss:.3f} below the last, {isolated(others[-1]['run'])}"
        if others[1:]
        else ""
    )
    return f"{words}has the lowest loss, {loss}: {below}{last}."


def _last(run: RunFolder, held_out: str) -> Any:
    points = run.losses(held_out)
    return points[-1] if points else None


def _value(measurement: Any) -> str:
    return f"{measurement.loss:.3f}" + (
        "" if measurement.error is None else f" ± {measurement.error:.3f}"
    )


def notes(runs: Sequence[RunFolder], domains: Domains | None, no_catalog: str) -> list[str]:
    """As markup.

    Args:
        no_catalog: why there are no domains, if there are none.
    """
    found = [_unfinished(run) for run in runs if run.final is None]
    found += [
        f"{isolated(run.label)}: {isolated(sentence)}." for run in runs for sentence in run.damage
    ]
    diverged = {
        run.label: sum(number(record, "loss") is None for record in run.of_kind("eval"))
        for run in runs
    }
    found += [
        f"{isolated(label)}: {n} held-out losses are not finite and are left out."
        for label, n in diverged.items()
        if n
    ]
    tokens = [row["tokens"] for row in map(summarise, runs) if row["tokens"]]
    if tokens and max(tokens) > 1.01 * min(tokens):
        found.append(
            f"The runs saw different amounts of text ({short_number(min(tokens))} to {short_number(max(tokens))} tokens): compare curves, not ends."
        )
    if len({run.target for run in runs}) > 1:
        found.append(
            "The runs have different targets: losses of different targets cannot be compared."
        )
    found += _of_catalogs(runs, domains, no_catalog)
    if len(runs) > 1 and not seed_groups(runs):
        found.append(
            "Each line is one run: how much it would vary with another seed is only known where several seeds are shown."
        )
    return found


def _unfinished(run: RunFolder) -> str:
    planned = (run.count("training", "steps") or 0) + (run.count("finetune", "steps") or 0)
    done = int(run.progress()[0][-1])
    where = f" (step {done:,} of {planned:,}, {percent(min(done / planned, 1))})" if planned else ""
    return f"{isolated(run.label)} has not finished{where}: its numbers are the last it wrote."


def _of_catalogs(runs: Sequence[RunFolder], domains: Domains | None, no_catalog: str) -> list[str]:
    catalogs = {
        run.about.get("catalog") for run in runs if isinstance(run.about.get("catalog"), str)
    }
    if len(catalogs) > 1:
        found = [
            "The runs were trained on different catalogs: their held-out texts, tokenizers and domains may differ."
        ]
    elif (
        domains is not None
        and domains.fingerprint
        and catalogs
        and domains.fingerprint not in catalogs
    ):
        found = [
            "The catalog shown here is not the one the runs were trained on: its fingerprint differs."
        ]
    else:
        found = []
    if domains is None:
        return [*found, no_catalog]
    for run in runs:
        if run.usage is not None and drawn_domains(run, domains) is None:
            most, leaves = int(run.usage.leaf.max()), domains.levels.leaves
            found.append(
                f"{isolated(run.label)} drew from leaf {most}, this catalog has {leaves} leaves: give the catalog it was trained on."
            )
    waiting = [run for run in runs if run.usage is None and drawn_domains(run, domains) is not None]
    if waiting:
        names = ", ".join(isolated(run.label) for run in waiting)
        found.append(
            f"{names}: what was drawn of each domain is reckoned from the weights, as it is written at the end of a run."
        )
    return found
