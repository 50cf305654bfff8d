"""`clustermix fetch`: bring a corpus or a catalog here. Interrupted, the same command goes on."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import JsonOption, VersionOption, examples
from flows.cli.output import print_json

fetch_commands = typer.Typer(
    no_args_is_help=True,
    help="Bring a corpus or a catalog here. Interrupted at any point, the same command goes on where it stopped.",
)


@fetch_commands.command(
    "catalog",
    epilog=examples(
        "fetch catalog s3://bucket/catalogs/sample catalogs/sample",
        "fetch catalog s3://bucket/catalogs/sample catalogs/sample --without documents --without signals --without verdicts",
    ),
)
def fetch_catalog_command(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="Where `clustermix export catalog` put it.", show_default=False
        ),
    ],
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="For the catalog; the same one goes on.", show_default=False
        ),
    ],
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART", help="documents, tokens, signals or verdicts; repeat for more."
        ),
    ] = None,
    version: VersionOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Files at once.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """A catalog from an object store or a folder, every file checked against the manifest.

    The trainer needs neither documents, signals nor verdicts. The same command without --without brings the rest.
    """
    from data_catalog.transfer.copy import fetch_catalog
    from flows.progress import transfer_progress

    with transfer_progress("{:,} of {:,} files") as on_file:
        came = fetch_catalog(
            url, folder, version=version, without=without or (), workers=workers, on_file=on_file
        )
    if as_json:
        print_json(asdict(came))
        return
    lacking = f"; without {', '.join(came.left_out)}" if came.left_out else ""
    print(
        f"{folder}: version {came.version}, {came.files} files, {came.copied} of them came now ({came.bytes / 1e6:,.1f} MB){lacking}"
    )


@fetch_commands.command(
    "rpv2",
    epilog=examples(
        "fetch rpv2 data/redpajama-v2 --snapshot 2023-06 --lang en --shards 0-9",
        "fetch rpv2 data/redpajama-v2-sample --sample",
    ),
)
def fetch_rpv2_command(
    root: Annotated[
        Path, typer.Argument(help='Folder for the tree that `source.kind = "rpv2"` reads.')
    ],
    sample: Annotated[
        bool, typer.Option("--sample", help="The million-document sample on the Hugging Face hub.")
    ] = False,
    snapshot: Annotated[
        list[str] | None, typer.Option(help="e.g. 2023-06; repeat for more.")
    ] = None,
    lang: Annotated[
        list[str] | None, typer.Option(help="en, de, fr, es or it; repeat for more.")
    ] = None,
    bucket: Annotated[list[str], typer.Option(help="head, middle or tail; repeat for more.")] = [  # noqa: B006
        "head",
        "middle",
    ],
    shards: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="e.g. 0-9,17; all that are listed if not given."),
    ] = None,
    component: Annotated[
        list[str] | None,
        typer.Option(help="documents, quality_signals, duplicates, minhash; repeat for more."),
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="A mirror.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Files at once.")] = 8,
    retry_absent: Annotated[
        bool, typer.Option("--retry-absent", help="Ask again for what the server did not have.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """RedPajama-V2, by its listings: documents, quality signals, duplicates, and minhash if asked for."""
    from flows.progress import transfer_progress
    from pipeline.fetch.listing import parse_shards
    from pipeline.fetch.rpv2 import COMPONENTS, fetch_rpv2

    with transfer_progress("{:,} of {:,} files") as on_file:
        done = fetch_rpv2(
            root,
            sample=sample,
            snapshots=snapshot or (),
            languages=lang or (),
            buckets=bucket,
            shards=parse_shards(shards) if shards else None,
            components=component or COMPONENTS,
            base_url=base_url,
            workers=workers,
            retry_absent=retry_absent,
            on_file=on_file,
        )
    if as_json:
        failures = [failure.model_dump(mode="json") for failure in done.failures]
        print_json({"folder": root, **asdict(done), "failures": failures})
    else:
        print(
            f"{root}: {done.fetched} files fetched ({done.bytes / 1e6:,.1f} MB), {done.present} were here, {done.absent} absent upstream, "
            f"{done.refused} refused, {done.failed} failed"
        )
        for failure in done.failures:
            print(f"  {failure.path}: {failure.detail or failure.state}")
    if done.failed:
        raise typer.Exit(1)


@fetch_commands.command(
    "dataset",
    epilog=examples(
        "fetch dataset data/fineweb HuggingFaceFW/fineweb --subset sample-10BT --max-rows 1000000"
    ),
)
def fetch_dataset_command(
    root: Annotated[
        Path,
        typer.Argument(help='Folder for the Parquet pieces that `source.kind = "parquet"` reads.'),
    ],
    name: Annotated[
        str, typer.Argument(help="A dataset on the Hugging Face hub, or a folder with one.")
    ],
    subset: Annotated[str | None, typer.Option(help="The dataset's configuration.")] = None,
    split: Annotated[str, typer.Option(help="The dataset's split.")] = "train",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="A column to keep; repeat for more. All if not given.")
    ] = None,
    rows_per_piece: Annotated[int, typer.Option(min=1, help="Rows of one Parquet file.")] = 100_000,
    max_rows: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    as_json: JsonOption = False,
) -> None:
    """A dataset, streamed into Parquet pieces with a stored position."""
    from flows.progress import transfer_progress
    from pipeline.config import Dataset
    from pipeline.fetch.dataset import fetch_dataset

    source = Dataset(kind="dataset", name=name, subset=subset, split=split, revision=revision)
    with transfer_progress("{:,} pieces, {:,} rows") as on_piece:
        done = fetch_dataset(
            root,
            source,
            keep=keep or (),
            rows_per_piece=rows_per_piece,
            max_rows=max_rows,
            on_piece=on_piece,
        )
    if as_json:
        print_json({"folder": root, **asdict(done)})
        return
    state = (
        "all of it"
        if done.finished and max_rows is None
        else "more on the next call"
        if not done.finished
        else "as many as asked for"
    )
    print(
        f"{root}: {done.rows:,} rows in {done.pieces} pieces ({done.bytes / 1e6:,.1f} MB), {state}"
    )
