"""The command `experiment`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import TRAIN, ConfigArgument, JsonOption, TrainSetOption, examples
from flows.cli.output import print_json, stdout_for_json
from flows.cli.prefect import PrefectOption, prefect_server_if, uses_prefect
from flows.cli.train import ProcessesOption

experiment_commands = typer.Typer()


@experiment_commands.command(
    "experiment",
    rich_help_panel=TRAIN,
    epilog=examples(
        "experiment configs/train_sample.toml --variant natural --variant dga --seed 0 --seed 1",
        "experiment configs/experiment_frontier.toml --jobs 2",
    ),
)
def experiment_command(
    config: ConfigArgument,
    variants: Annotated[
        list[str] | None,
        typer.Option(
            "--variant",
            metavar="NAME=KEY=VALUE",
            help="A variant and a config key that it overrides, or the name of a mixer. "
            "Repeatable: a name can have several keys. Needed unless CONFIG is a recipe.",
            show_default=False,
        ),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option("--target", help="Target to train with. Repeatable. Default: the config's."),
    ] = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option("--seed", min=0, help="Seed of the runs. Repeatable. Default: the config's."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Number of runs at the same time.")
    ] = None,
    overrides: TrainSetOption = None,
    processes: ProcessesOption = 1,
    prefect: PrefectOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train every variant with every target and seed, and compare them.

    CONFIG is a training config, or a recipe of an experiment. The runs are in OUT/runs, their
    results in OUT/results.jsonl, the tables in OUT/results.md and the page in OUT/experiment.html.
    Finished runs are kept, also if the command is repeated with more variants, targets or seeds.
    """
    from flows.recipe import open_recipe

    chosen = {"targets": targets, "seeds": seeds, "jobs": jobs}
    recipe = open_recipe(
        config, variants or (), {k: v for k, v in chosen.items() if v}, overrides or ()
    )
    in_prefect = uses_prefect(prefect)
    with stdout_for_json(as_json):
        from flows.experiment_runs import checked_runs

        runs = [run.config.folder for run in checked_runs(recipe)]
        with prefect_server_if(in_prefect):
            if in_prefect:
                from flows.experiment import experiment as flow

                folder = Path(flow(recipe, processes=processes))
            else:
                from flows.local.experiment import experiment

                folder = experiment(recipe, processes)
    if as_json:
        from flows.pages.run import summary_table

        page = str(folder / "experiment.html")
        print_json({"folder": str(folder), "page": page, "runs": summary_table(runs)})
    else:
        from flows.cli.summary import print_runs

        print_runs(runs, "run")
        print(f"Results: {folder / 'results.md'}")
        print(f"Page: {folder / 'experiment.html'}")
        if (folder / "report.html").is_file():
            print(f"Report: {folder / 'report.html'}")
