"""`clustermix fetch`: bring a corpus here, so that a build reads files. Interrupted, the same command goes on."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Bring a corpus here. Interrupted at any point, the same command goes on where it stopped.")


@app.command(epilog="Example: clustermix fetch rpv2 data/redpajama-v2 --snapshot 2023-06 --lang en --shards 0-9")
def rpv2(
    root: Annotated[Path, typer.Argument(help='Folder for the tree that `source.kind = "rpv2"` reads.')],
    sample: Annotated[bool, typer.Option("--sample", help="The million-document sample on the Hugging Face hub.")] = False,
    snapshot: Annotated[list[str] | None, typer.Option(help="e.g. 2023-06; repeat for more.")] = None,
    lang: Annotated[list[str] | None, typer.Option(help="en, de, fr, es or it; repeat for more.")] = None,
    bucket: Annotated[list[str], typer.Option(help="head, middle or tail; repeat for more.")] = ["head", "middle"],  # noqa: B006
    shards: Annotated[str | None, typer.Option(metavar="LIST", help="e.g. 0-9,17; all that are listed if not given.")] = None,
    component: Annotated[list[str] | None, typer.Option(help="documents, quality_signals, duplicates, minhash; repeat for more.")] = None,
    base_url: Annotated[str | None, typer.Option(help="A mirror.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Files at once.")] = 8,
    retry_absent: Annotated[bool, typer.Option("--retry-absent", help="Ask again for what the server did not have.")] = False,
) -> None:
    """RedPajama-V2, by its listings: documents, quality signals, duplicates, and minhash if asked for."""
    from flows.progress import transfer
    from pipeline.fetch.listing import parse_shards
    from pipeline.fetch.rpv2 import COMPONENTS, fetch_rpv2

    with transfer("{:,} of {:,} files") as on_file:
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
    print(
        f"{root}: {done.fetched} files fetched ({done.bytes / 1e6:,.1f} MB), {done.present} were here, {done.absent} absent upstream, "
        f"{done.refused} refused, {done.failed} failed"
    )
    for failure in done.failures:
        print(f"  {failure.path}: {failure.detail or failure.state}")
    if done.failed:
        raise typer.Exit(1)


@app.command(epilog="Example: clustermix fetch dataset data/fineweb HuggingFaceFW/fineweb --subset sample-10BT --max-rows 1000000")
def dataset(
    root: Annotated[Path, typer.Argument(help='Folder for the Parquet pieces that `source.kind = "parquet"` reads.')],
    name: Annotated[str, typer.Argument(help="A dataset on the Hugging Face hub, or a folder with one.")],
    subset: Annotated[str | None, typer.Option(help="The dataset's configuration.")] = None,
    split: Annotated[str, typer.Option(help="The dataset's split.")] = "train",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="A column to keep; repeat for more. All if not given.")] = None,
    rows_per_piece: Annotated[int, typer.Option(min=1, help="Rows of one Parquet file.")] = 100_000,
    max_rows: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
) -> None:
    """A dataset, streamed into Parquet pieces with a stored position."""
    from flows.progress import transfer
    from pipeline.config import Dataset
    from pipeline.fetch.dataset import fetch_dataset

    source = Dataset(kind="dataset", name=name, subset=subset, split=split, revision=revision)
    with transfer("{:,} pieces, {:,} rows") as on_piece:
        done = fetch_dataset(root, source, keep=keep or (), rows_per_piece=rows_per_piece, max_rows=max_rows, on_piece=on_piece)
    state = "all of it" if done.finished and max_rows is None else "more on the next call" if not done.finished else "as many as asked for"
    print(f"{root}: {done.rows:,} rows in {done.pieces} pieces ({done.bytes / 1e6:,.1f} MB), {state}")
