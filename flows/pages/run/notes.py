"""Notes on what limits a comparison of runs."""

from collections.abc import Sequence

from flows.pages.run.domains import Domains
from flows.pages.run.mixture import drawn_domains
from flows.pages.run.run_folder import RunFolder, number
from flows.pages.run.summary import seed_groups, summarise
from flows.pages.shared.markup import isolated, percent, short_number


def notes(runs: Sequence[RunFolder], domains: Domains | None, no_catalog: str) -> list[str]:
    """Return notes on the comparison as HTML.

    Args:
        runs: The runs.
        domains: Domains of the catalog, if there are any.
        no_catalog: The reason if there are no domains.
    """
    sentences = [_unfinished(run) for run in runs if run.final is None]
    sentences += [
        f"{isolated(run.label)}: {isolated(sentence)}." for run in runs for sentence in run.damage
    ]
    diverged = {
        run.label: sum(number(record, "loss") is None for record in run.of_kind("eval"))
        for run in runs
    }
    sentences += [
        f"{isolated(label)}: {n} held-out losses are not finite and are not shown."
        for label, n in diverged.items()
        if n
    ]
    tokens = [row["tokens"] for row in map(summarise, runs) if row["tokens"]]
    if tokens and max(tokens) > 1.01 * min(tokens):
        sentences.append(
            f"The runs were trained on different amounts of text ({short_number(min(tokens))} to "
            f"{short_number(max(tokens))} tokens). Compare the curves instead of the last losses."
        )
    if len({run.target for run in runs}) > 1:
        sentences.append(
            "The runs have different targets. Losses on different targets are not comparable."
        )
    sentences += _of_catalogs(runs, domains, no_catalog)
    if len(runs) > 1 and not seed_groups(runs):
        sentences.append(
            "Each curve is a single run. The variation between seeds is unknown unless several "
            "seeds are shown."
        )
    return sentences


def _unfinished(run: RunFolder) -> str:
    planned = (run.count("training", "steps") or 0) + (run.count("finetune", "steps") or 0)
    done = int(run.progress()[0][-1])
    where = f" (step {done:,} of {planned:,}, {percent(min(done / planned, 1))})" if planned else ""
    return (
        f"{isolated(run.label)} is not finished{where}. Its numbers are the latest it has written."
    )


def _of_catalogs(runs: Sequence[RunFolder], domains: Domains | None, no_catalog: str) -> list[str]:
    catalogs = {
        run.about.get("catalog") for run in runs if isinstance(run.about.get("catalog"), str)
    }
    if len(catalogs) > 1:
        sentences = [
            "The runs were trained on different catalogs. Their held-out texts, tokenizers and "
            "domains may differ."
        ]
    elif (
        domains is not None
        and domains.fingerprint
        and catalogs
        and domains.fingerprint not in catalogs
    ):
        sentences = [
            "The runs were trained on another catalog than the one shown here. Their fingerprints "
            "differ."
        ]
    else:
        sentences = []
    if domains is None:
        return [*sentences, no_catalog]
    for run in runs:
        if run.usage is not None and drawn_domains(run, domains) is None:
            highest, leaves = int(run.usage.leaf.max()), domains.levels.leaves
            sentences.append(
                f"{isolated(run.label)} sampled from leaf {highest}, but this catalog has {leaves} "
                "leaves. Give the catalog it was trained on."
            )
    waiting = [run for run in runs if run.usage is None and drawn_domains(run, domains) is not None]
    if waiting:
        names = ", ".join(isolated(run.label) for run in waiting)
        sentences.append(
            f"{names}: the tokens sampled from each domain are estimated from the weights, because "
            "exact numbers are only written at the end of a run."
        )
    return sentences
