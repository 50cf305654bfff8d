"""Explore a catalog and compare two runs on it, in a marimo notebook.

    marimo edit examples/explore.py              # the notebook, in the browser
    marimo run examples/explore.py               # the same without the code
    python examples/explore.py                   # as a script that computes everything once

By default, the notebook opens catalogs/sample and runs/*. To open others, use
`marimo edit examples/explore.py -- --catalog FOLDER --runs GLOB`, or set the environment variables
CLUSTERMIX_CATALOG and CLUSTERMIX_RUNS. Separate several globs with colons.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="A catalog")


@app.cell
def _():
    import glob
    import os

    import marimo as mo

    import data_catalog

    return data_catalog, glob, mo, os


@app.cell
def _(mo, os):
    arguments = {
        "catalog": os.environ.get("CLUSTERMIX_CATALOG", "catalogs/sample"),
        "runs": os.environ.get("CLUSTERMIX_RUNS", "runs/*"),
    }
    arguments |= mo.cli_args().to_dict()
    chosen_catalog = mo.ui.text(str(arguments["catalog"]), label="Catalog", full_width=True)
    chosen_runs = mo.ui.text(str(arguments["runs"]), label="Runs", full_width=True)
    mo.vstack([mo.md("# A catalog of domains"), chosen_catalog, chosen_runs])
    return chosen_catalog, chosen_runs


@app.cell
def _(chosen_catalog, chosen_runs, data_catalog, glob, os):
    # Globs that match no run are ignored. Without runs, the notebook shows the catalog alone.
    patterns = [
        pattern
        for pattern in chosen_runs.value.split(":")
        if any(os.path.isfile(f"{folder}/config.json") for folder in glob.glob(pattern))
    ]
    catalog = data_catalog.open(chosen_catalog.value, runs=patterns)
    catalog
    return (catalog,)


@app.cell
def _(catalog, mo):
    # Every query returns a DuckDB relation. Convert it with `.df()` (pandas), `.pl()` (polars) or
    # `.to_arrow_table()` (Arrow).
    largest = catalog.sql(
        """SELECT level, domain, documents, tokens, array_to_string(terms[1:6], ', ') AS terms
           FROM domains ORDER BY level, tokens DESC"""
    ).df()
    mo.vstack([mo.md("## Sizes of domains"), catalog.plot.domain_sizes(), largest])
    return (largest,)


@app.cell
def _(catalog, mo):
    targets = [name for (name,) in catalog.sql("SELECT name FROM targets ORDER BY name").fetchall()]
    level = mo.ui.dropdown(
        {f"{k:,}": k for k in catalog.levels.granularities if k <= 4096},
        value=f"{catalog.levels.granularities[:2][-1]:,}",
    )
    target = mo.ui.dropdown(targets, value=targets[0] if targets else None)
    colour = mo.ui.dropdown(
        [*targets, "natural", "quality", "distance", "source"],
        value=targets[0] if targets else "source",
    )
    mo.hstack(
        [mo.md("Level"), level, mo.md("Colour"), colour, mo.md("Target"), target], justify="start"
    )
    return colour, level, target, targets


@app.cell
def _(catalog, colour, level, mo):
    treemap = catalog.plot.treemap(level.value, colour.value)
    mo.vstack([mo.md("## Map of domains"), treemap, catalog.plot.map(level.value, colour.value)])
    return (treemap,)


@app.cell
def _(mo):
    word = mo.ui.text("", label="Search for a word in the domains' terms", debounce=True)
    word
    return (word,)


@app.cell
def _(catalog, mo, word):
    # The search text is passed as a parameter, so that it never becomes part of the query.
    matches = catalog.sql(
        """SELECT level, domain, documents, array_to_string(terms[1:8], ', ') AS terms FROM domains
           WHERE len(list_filter(terms, lambda term: contains(lower(term), lower($word)))) > 0
           ORDER BY level, tokens DESC LIMIT 20""",
        {"word": word.value},
    ).df()
    mo.vstack([mo.md("## Domains with this word"), matches])
    return (matches,)


@app.cell
def _(level, mo):
    domain = mo.ui.number(0, level.value - 1, value=0, label="Domain")
    domain
    return (domain,)


@app.cell
def _(catalog, domain, level, mo):
    # The documents of a domain are stored together, so that reading them takes milliseconds.
    examples = (
        catalog.domain(
            level.value, domain.value, ["doc_id", "source", "tokens", "distance", "text"]
        )
        .slice(0, 10)
        .to_pandas()
    )
    examples["text"] = examples["text"].str.slice(0, 200)
    # The text is untrusted. The plain pandas table shows it literally, while the table of marimo
    # would turn URLs into links.
    mo.vstack([mo.md(f"## Documents of domain {domain.value}"), mo.plain(examples)])
    return (examples,)


@app.cell
def _(catalog, mo, target, targets):
    mo.stop(not targets, mo.md("The catalog has no targets."))
    nearest = catalog.sql(
        """SELECT level, domain, rank, round(weight, 3) AS weight, distance_rank, documents,
           array_to_string(terms[1:6], ', ') AS terms
           FROM nearest_domains($target, 5) ORDER BY level, rank""",
        {"target": target.value},
    ).df()
    mo.vstack(
        [
            mo.md("## Nearest domains of the target"),
            nearest,
            catalog.plot.distributions(),
            catalog.plot.overlaps(),
        ]
    )
    return (nearest,)


@app.cell
def _(catalog, mo):
    mo.vstack([mo.md("## Dropped documents"), catalog.plot.drops()])


@app.cell
def _(catalog, mo):
    mo.stop("runs" not in catalog.views, mo.md("Enter runs above to compare them."))
    runs = catalog.sql(
        "SELECT run, mixer, target, seed, tokens, target_test_loss, general_loss, repeats FROM runs"
    ).df()
    names = runs["run"].tolist()
    first = mo.ui.dropdown(names, value=names[0], label="First run")
    second = mo.ui.dropdown(names, value=names[-1], label="Second run")
    mo.vstack(
        [mo.md("## Runs"), runs, catalog.plot.losses(), mo.hstack([first, second], justify="start")]
    )
    return first, runs, second


@app.cell
def _(catalog, first, mo, second):
    compared = [
        catalog.plot.weights(first.value),
        catalog.plot.weights(second.value),
        catalog.plot.scores(first.value),
    ]
    mo.vstack(compared)
    return (compared,)


if __name__ == "__main__":
    app.run()
