"""`clustermix fetch`: download a corpus or a catalog. An interrupted download can be resumed."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import JsonOption, VersionOption, examples
from flows.cli.output import print_json

fetch_commands = typer.Typer(
    no_args_is_help=True,
    help="Download a corpus or a catalog. An interrupted command resumes where it stopped.",
)


@fetch_commands.command(
    "catalog",
    epilog=examples(
        "fetch catalog s3://bucket/catalogs/sample catalogs/sample",
        "fetch catalog s3://bucket/catalogs/sample catalogs/sample --without documents "
        "--without signals --without verdicts",
    ),
)
def fetch_catalog_command(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="Location that `clustermix export catalog` wrote to.",
            show_default=False,
        ),
    ],
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Folder for the catalog. Use the same folder to resume.",
            show_default=False,
        ),
    ],
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help="Part to leave out: documents, tokens, signals or verdicts. Repeatable.",
        ),
    ] = None,
    version: VersionOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of parallel downloads.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Download a catalog from an object store or a folder, and check every file.

    Training does not need the parts documents, signals and verdicts. To get them
    later, repeat the command without --without.
    """
    from data_catalog.transfer.copy import fetch_catalog
    from flows.progress import transfer_progress

    with transfer_progress("{:,} of {:,} files") as on_file:
        result = fetch_catalog(
            url, folder, version=version, without=without or (), workers=workers, on_file=on_file
        )
    if as_json:
        print_json(asdict(result))
        return
    without_parts = f", without {', '.join(result.left_out)}" if result.left_out else ""
    print(
        f"{folder}: version {result.version}, {result.files} files, {result.copied} of them "
        f"downloaded now ({result.bytes / 1e6:,.1f} MB){without_parts}"
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
        Path,
        typer.Argument(help='Folder for the files. Builds read it with `source.kind = "rpv2"`.'),
    ],
    sample: Annotated[
        bool,
        typer.Option(
            "--sample", help="Download the million-document sample from the Hugging Face hub."
        ),
    ] = False,
    snapshot: Annotated[
        list[str] | None, typer.Option(help="Snapshot, e.g. 2023-06. Repeatable.")
    ] = None,
    lang: Annotated[
        list[str] | None, typer.Option(help="Language: en, de, fr, es or it. Repeatable.")
    ] = None,
    bucket: Annotated[
        list[str], typer.Option(help="Quality bucket: head, middle or tail. Repeatable.")
    ] = ["head", "middle"],  # noqa: B006
    shards: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Shards, e.g. 0-9,17. Default: all that are listed."),
    ] = None,
    component: Annotated[
        list[str] | None,
        typer.Option(
            help="Component: documents, quality_signals, duplicates or minhash. Repeatable. "
            "Default: all but minhash."
        ),
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="URL of a mirror.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of parallel downloads.")] = 8,
    retry_absent: Annotated[
        bool,
        typer.Option("--retry-absent", help="Retry files that the server did not have before."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Download files of RedPajama-V2 as its own listings name them."""
    from flows.progress import transfer_progress
    from pipeline.fetch.listing import parse_shards
    from pipeline.fetch.rpv2 import DEFAULT_COMPONENTS, fetch_rpv2

    with transfer_progress("{:,} of {:,} files") as on_file:
        result = fetch_rpv2(
            root,
            sample=sample,
            snapshots=snapshot or (),
            languages=lang or (),
            buckets=bucket,
            shards=parse_shards(shards) if shards else None,
            components=component or DEFAULT_COMPONENTS,
            base_url=base_url,
            workers=workers,
            retry_absent=retry_absent,
            on_file=on_file,
        )
    if as_json:
        failures = [failure.model_dump(mode="json") for failure in result.failures]
        print_json({"folder": root, **asdict(result), "failures": failures})
    else:
        print(
            f"{root}: {result.fetched} files fetched ({result.bytes / 1e6:,.1f} MB), "
            f"{result.present} already present, {result.absent} absent upstream, "
            f"{result.refused} refused, {result.failed} failed"
        )
        for failure in result.failures:
            print(f"  {failure.path}: {failure.detail or failure.state}")
    if result.failed:
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
        typer.Argument(
            help='Folder for the Parquet files. Builds read it with `source.kind = "parquet"`.'
        ),
    ],
    name: Annotated[
        str,
        typer.Argument(help="Dataset on the Hugging Face hub, or a local folder with a dataset."),
    ],
    subset: Annotated[str | None, typer.Option(help="Configuration of the dataset.")] = None,
    split: Annotated[str, typer.Option(help="Split of the dataset.")] = "train",
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the dataset on the hub.")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="Column to keep. Repeatable. Default: all columns.")
    ] = None,
    rows_per_piece: Annotated[int, typer.Option(min=1, help="Rows per Parquet file.")] = 100_000,
    max_rows: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of rows to fetch.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Stream a dataset into Parquet files. The position is stored after each file."""
    from flows.progress import transfer_progress
    from pipeline.config import Dataset
    from pipeline.fetch.dataset import fetch_dataset

    source = Dataset(kind="dataset", name=name, subset=subset, split=split, revision=revision)
    with transfer_progress("{:,} files, {:,} rows") as on_piece:
        result = fetch_dataset(
            root,
            source,
            keep=keep or (),
            rows_per_piece=rows_per_piece,
            max_rows=max_rows,
            on_piece=on_piece,
        )
    if as_json:
        print_json({"folder": root, **asdict(result)})
        return
    if not result.finished:
        state = "not complete (repeat the command to continue)"
    else:
        state = "complete" if max_rows is None else "maximum number of rows reached"
    print(
        f"{root}: {result.rows:,} rows in {result.pieces} files "
        f"({result.bytes / 1e6:,.1f} MB), {state}"
    )
