"""Commands that train on a catalog, and evaluate: train, replay, eval."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from flows.cli import complete
from flows.cli.options import TRAIN, ConfigArgument, JsonOption, TrainSetOption, examples
from flows.cli.output import print_json, stdout_for_json
from flows.cli.prefect import PrefectOption, prefect_server_if, uses_prefect

if TYPE_CHECKING:
    from flows.nodes import Nodes
    from flows.trainer_process import AcceptableChange
    from trainer.config import Train

train_commands = typer.Typer()
ProcessesOption = Annotated[
    int, typer.Option(min=1, help="Number of training processes, e.g. one per GPU.")
]
NodesOption = Annotated[
    str | None,
    typer.Option(
        "--nodes",
        metavar="N|MIN:MAX",
        help="Number of machines. Run the same command on each. With MIN:MAX, machines may join "
        "and leave. Needs --rdzv.",
        show_default=False,
    ),
]
MeetingOption = Annotated[
    str | None,
    typer.Option(
        "--rdzv",
        metavar="HOST:PORT",
        help="Where the machines meet: HOST is one of them.",
        show_default=False,
    ),
]
MeetingNameOption = Annotated[
    str, typer.Option("--rdzv-id", help="Name of this run, if several meet at one place.")
]


class RunChange(StrEnum):
    """Something that may differ from when a run began."""

    config = "config"
    catalog = "catalog"
    tokenizer = "tokenizer"


Accept = Annotated[
    list[RunChange] | None,
    typer.Option(help="Resume a run although this has changed since it began. Repeatable."),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify",
        help="Compare the catalog's files with their checksums, once on each machine.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Print the data, memory and work that the run would need. Nothing is written.",
    ),
]


@train_commands.command(
    "train",
    rich_help_panel=TRAIN,
    epilog=examples(
        "train configs/train_sample.toml --dry-run",
        "train configs/train_sample.toml --set mixture.mixer=natural --set out=runs/sample-natural",
        "train configs/train_sample.toml --processes 2 --json",
        "train configs/train_sample.toml --nodes 2 --rdzv head:29500 --processes 8",
    ),
)
def train_command(
    config: ConfigArgument,
    overrides: TrainSetOption = None,
    processes: ProcessesOption = 1,
    nodes: NodesOption = None,
    rdzv: MeetingOption = None,
    rdzv_id: MeetingNameOption = "clustermix",
    accept: Accept = None,
    verify: Verify = True,
    dry_run: DryRun = False,
    prefect: PrefectOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train on a catalog and write the run's report.

    After an interruption, the same command resumes from the last checkpoint.
    """
    from data_catalog.settings import load
    from trainer.config import Train

    settings = load(Train, config, overrides or ())
    machines = _machines(nodes, rdzv, rdzv_id)
    _train(settings, processes, accept, verify, dry_run, prefect, as_json, machines)


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
            help="Folder of the run whose weights are replayed.",
            show_default=False,
            autocompletion=complete.runs,
        ),
    ],
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG",
            help="Config file (TOML) for everything but the mixture. Default: the config of RUN.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the new run.", show_default=False)] = ...,  # type: ignore[assignment]
    overrides: TrainSetOption = None,
    processes: ProcessesOption = 1,
    accept: Accept = None,
    verify: Verify = True,
    dry_run: DryRun = False,
    prefect: PrefectOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train with the weights that another run chose, at the same token counts.

    This applies what a small model has learned to a larger one.
    """
    from trainer.mixers.replay import replaying

    settings = replaying(run, config, out, overrides or ())
    _train(settings, processes, accept, verify, dry_run, prefect, as_json)


def _machines(nodes: str | None, rdzv: str | None, name: str) -> "Nodes | None":
    """Return the machines that the options name, or None for this machine alone.

    Raises:
        UserError: The options are incomplete or invalid.
    """
    if nodes is None and rdzv is None:
        return None
    from data_catalog.errors import UserError
    from data_catalog.settings import parse
    from flows.nodes import Nodes

    if nodes is None or rdzv is None:
        raise UserError("--nodes and --rdzv: found only one of them. Give both, or none.")
    return parse(Nodes, {"count": nodes, "rdzv": rdzv, "rdzv_id": name}, "--nodes")


def _train(
    settings: "Train",
    processes: int,
    accept: Sequence[RunChange] | None,
    verify: bool,
    dry_run: bool,
    prefect: bool,
    as_json: bool,
    nodes: "Nodes | None" = None,
) -> None:
    from flows.training_check import check_training, is_finished, require_same_run

    check_training(settings)
    if dry_run:
        from trainer.preview import preview

        result = preview(settings, processes * (int(nodes.count.partition(":")[0]) if nodes else 1))
        if as_json:
            print_json(result.model_dump(mode="json"))
        else:
            from flows.cli.preview import print_preview

            print_preview(result)
        return
    if not accept:
        require_same_run(settings)
    if is_finished(settings.folder) and (settings.folder / "report.html").is_file():
        from flows.progress import console

        line = f"{settings.out} is finished. Nothing to do."
        console.print(line, highlight=False, markup=False, soft_wrap=True)
        _print_result(settings, as_json)
        return
    changes = cast("tuple[AcceptableChange, ...]", tuple(change.value for change in accept or ()))
    in_prefect = uses_prefect(prefect)
    with stdout_for_json(as_json), prefect_server_if(in_prefect):
        if in_prefect:
            from flows.train import train as flow

            flow(settings, processes, changes, verify, nodes)
        else:
            from flows.local.train import train

            train(settings, processes, changes, verify, nodes)
    _print_result(settings, as_json)


def _print_result(settings: "Train", as_json: bool) -> None:
    """Print the results of a finished run."""
    if not as_json:
        from flows.cli.run_summary import print_run

        print_run(settings)
        return
    from data_catalog.transfer.run_copy import local_run
    from flows.pages.run import summary_table

    with local_run(settings.out) as folder:
        [row] = summary_table([folder])
    page = settings.out / "report.html"
    print_json({"folder": str(settings.out), "page": str(page), **row})


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
            help="Folder of a finished run.",
            show_default=False,
            autocompletion=complete.runs,
        ),
    ],
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            help="Target of the run's catalog that has multiple-choice questions. Repeatable.",
            autocompletion=complete.targets,
        ),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--task", help="Task of lm-evaluation-harness in the folder --tasks-from. Repeatable."
        ),
    ] = None,
    tasks_from: Annotated[
        Path | None, typer.Option(help="Folder with task files (YAML) of lm-evaluation-harness.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of questions per task.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure accuracy on multiple-choice questions and write RUN/accuracy.json.

    Uses lm-evaluation-harness with local files only.
    """
    from trainer.evaluation.accuracy import evaluate_run

    with stdout_for_json(as_json):
        result = evaluate_run(run, targets or (), tasks or (), tasks_from, limit=limit)
    if as_json:
        print_json(result)
    else:
        from flows.cli.summary import print_rows

        print_rows([{"task": name, **values} for name, values in result["tasks"].items()])
