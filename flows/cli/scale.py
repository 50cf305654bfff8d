"""The options of `plan` for a build of another size, and its output."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import print_json

if TYPE_CHECKING:
    from pipeline.planning.scale import Scale

ScaleOption = Annotated[
    str | None,
    typer.Option(
        "--scale",
        metavar="SIZE",
        help="Estimate a build of this many documents like those at hand: a number, or a part of "
        "RedPajama-V2: snapshot (English head and middle), deduplicated (head and middle) or all.",
    ),
]
MachinesOption = Annotated[
    int, typer.Option(min=1, help="With --scale: number of machines like this one.")
]
DevicesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="With --scale: number of devices that embed. Default: those of all machines.",
    ),
]
EncoderRateOption = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        help="With --scale: documents per second of one device, as `plan` measured it there. "
        "Default: as measured on this machine.",
    ),
]


def print_scale(scale: "Scale", as_json: bool) -> None:
    """Print the estimate of a build at another size."""
    if as_json:
        print_json({**scale.model_dump(mode="json"), "warnings": scale.warnings})
        return
    from flows.cli.summary import format_time, labelled_lines, print_rows, stdout_console

    console = stdout_console()
    lines = {
        "corpus": f"{scale.documents:,} documents in {scale.files:,} files, "
        f"{scale.input_bytes / 1e12:,.2f} TB",
        "machines": f"{scale.machines:,} like this one, {scale.devices:,} devices embed",
        "time": f"{format_time(scale.hours * 3600)} if stages run one after another",
        "ranges": f"{scale.ranges:,} ranges of leaves of {scale.range_bytes / 2**30:,.2f} GiB",
        "tree": f"{scale.tree_memory_bytes / 2**30:,.1f} GiB of memory",
        "catalog": f"{scale.catalog_bytes / 1e12:,.2f} TB in {scale.catalog_files:,} files, listed "
        f"in {scale.manifest_bytes / 1e6:,.1f} MB",
        "extrapolated": "from the speed of this machine. Nothing was run at this size.",
    }
    console.print(labelled_lines(lines))
    for warning in scale.warnings:
        console.print(f"warning: {warning}", soft_wrap=True, highlight=False)
    print_rows(
        [
            {
                "stage": stage.stage,
                "tasks": stage.tasks,
                "machine hours": stage.machine_hours,
                "hours": stage.hours,
                "TB written": stage.written_bytes / 1e12,
                "objects written": stage.written_objects,
                "objects read": stage.read_objects,
            }
            for stage in scale.stages
        ]
    )
