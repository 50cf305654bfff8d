"""Commands that train on a catalog: train, replay, eval."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from flows.cli import complete
from flows.cli.options import TRAIN, ConfigArgument, JsonOption, TrainSetOption, examples
from flows.cli.output import print_json, stdout_for_json

if TYPE_CHECKING:
    from flows.train import AcceptedChange
    from trainer.config import Train

train_commands = typer.Typer()
ProcessesOption = Annotated[int, typer.Option(min=1, help="One process a GPU, or CPU processes.")]


class RunChange(StrEnum):
    """What may differ from when a run began."""

    config = "config"
    catalog = "catalog"
    tokenizer = "tokenizer"


Accept = Annotated[
    list[RunChange] | None, typer.Option(help="Go on with a begun run although this has changed.")
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what the run would draw, need and cost. Writes nothing."),
]


@train_commands.command(
    "train",
    rich_help_panel=TRAIN,
    epilog=examples(
        "train configs/train_sample.toml --dry-run",
        "train configs/train_sample.toml --set mixture.mixer=natural --set out=runs/sample-natural",
        "train configs/train_sample.toml --processes 2 --json",
    ),
)
def train_command(
    config: ConfigArgument,
    overrides: TrainSetOption = None,
    processes: ProcessesOption = 1,
    accept: Accept = None,
    dry_run: DryRun = False,
    as_json: JsonOption = False,
) -> None:
    """Train on a built catalog and write the run's report. Interrupted, the same command goes on from the last checkpoint."""
    from data_catalog.settings import load
    from trainer.config import Train

    _train(load(Train, config, overrides or ()), processes, accept, dry_run, as_json)


@train_commands.command(
    "replay",
    rich_help_panel=TRAIN,
    epilog=examples(
        "replay runs/sample-dga --out runs/sample-replayed --set model.preset=125m",
        "replay runs/sample-dga configs/train_sample.toml --out runs/sample-replayed --dry-run",
    ),
)
def replay_command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="The run whose weights are followed.",
            show_default=False,
            autocompletion=complete.runs,
        ),
    ],
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CONFIG]",
            help="A TOML file for all but the mixture; as RUN was trained if not given.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the new run.", show_default=False)] = ...,  # type: ignore[assignment]
    overrides: TrainSetOption = None,
    processes: ProcessesOption = 1,
    accept: Accept = None,
    dry_run: DryRun = False,
    as_json: JsonOption = False,
) -> None:
    """Train on the weights that another run chose, token by token: what a small model learned, for a large one."""
    from trainer.replay import replaying

    _train(replaying(run, config, out, overrides or ()), processes, accept, dry_run, as_json)


def _train(
    settings: "Train",
    processes: int,
    accept: Sequence[RunChange] | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    from flows.train import check_training

    check_training(settings)
    if dry_run:
        from trainer.preview import preview

        found = preview(settings)
        if as_json:
            print_json(found.model_dump(mode="json"))
        else:
            from flows.cli.preview import print_preview

            print_preview(found)
        return
    from flows.train import train as flow

    with stdout_for_json(as_json):
        run = Path(
            flow(
                settings,
                processes,
                cast("tuple[AcceptedChange, ...]", tuple(change.value for change in accept or ())),
            )
        )
    page = run / "report.html"
    if as_json:
        from flows.pages.run import summary_table

        [row] = summary_table([run])
        print_json({"folder": str(run), "page": str(page), **row})
    else:
        print(page)


@train_commands.command(
    "eval",
    rich_help_panel=TRAIN,
    epilog=examples(
        "eval runs/sample-dga --target mmlu --limit 200",
        "eval runs/sample-dga --tasks-from tasks --task colours --json",
    ),
)
def eval_command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A finished run's folder.",
            show_default=False,
            autocompletion=complete.runs,
        ),
    ],
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            help="A target of the run's catalog with lettered choices.",
            autocompletion=complete.targets,
        ),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--task", help="A task of lm-evaluation-harness in --tasks-from."),
    ] = None,
    tasks_from: Annotated[Path | None, typer.Option(help="Folder of task files (YAML).")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each task.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure accuracy on multiple-choice questions with lm-evaluation-harness, from local files. Writes RUN/accuracy.json."""
    from trainer.evaluation.accuracy import evaluate_run

    with stdout_for_json(as_json):
        found = evaluate_run(run, targets or (), tasks or (), tasks_from, limit=limit)
    if as_json:
        print_json(found)
    else:
        from flows.cli.summary import print_rows

        print_rows([{"task": name, **values} for name, values in found["tasks"].items()])
