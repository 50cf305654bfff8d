"""`clustermix export`: a catalog to an object store, or documents out of it for other trainers."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.cli import complete
from flows.cli.options import CatalogArgument, JsonOption, VersionOption, examples
from flows.cli.output import print_json

export_commands = typer.Typer(
    no_args_is_help=True,
    help="Send a catalog to an object store, or write documents out of it for other trainers.",
)


@export_commands.command(
    "catalog",
    epilog=examples(
        "export catalog catalogs/sample s3://bucket/catalogs/sample",
        "export catalog catalogs/sample /mnt/disk/sample --version 1",
    ),
)
def export_catalog_command(
    catalog: CatalogArgument,
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="A folder, or s3://…, gs://… and so on.", show_default=False
        ),
    ],
    version: VersionOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Files at once.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Copy a catalog to an object store or a folder, `catalog.json` last. Interrupted, the same command goes on.

    Earlier versions go with it. What is there already is not sent again.
    """
    from data_catalog.transfer.copy import export_catalog
    from flows.progress import transfer_progress

    with transfer_progress("{:,} of {:,} files") as on_file:
        sent = export_catalog(catalog, url, version=version, workers=workers, on_file=on_file)
    if as_json:
        print_json(asdict(sent))
    else:
        print(
            f"{url}: version {sent.version}, {sent.files} files, {sent.copied} of them sent now ({sent.bytes / 1e6:,.1f} MB)"
        )


@export_commands.command(
    "documents",
    epilog=examples(
        "export documents catalogs/sample out/law --level 64 --domain 44 --domain 47",
        "export documents catalogs/sample out/short --where \"language = 'en' AND tokens < 500\" --format parquet",
        "export documents catalogs/sample out/mixture --weights runs/sample-dga --tokens 5000000",
    ),
)
def export_documents_command(
    catalog: CatalogArgument,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="A new folder: data/shard_00000.jsonl and so on, export.json."
        ),
    ],
    level: Annotated[
        int | None, typer.Option(help="Of --domain.", autocompletion=complete.levels)
    ] = None,
    domain: Annotated[
        list[int] | None, typer.Option(help="Only this domain; repeat for more.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="CONDITION", help="In SQL, over the columns of the view documents."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Draw in the proportions of a finished run's last weights.",
            autocompletion=complete.runs,
        ),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="With --weights: how many to draw.")
    ] = None,
    seed: Annotated[int, typer.Option(help="With --weights: of the draw.")] = 0,
    split: Annotated[
        Literal["train", "heldout", "all"],
        typer.Option(help="The catalog holds some out for evaluation."),
    ] = "train",
    columns: Annotated[
        str, typer.Option(metavar="LIST", help="Of the view documents, with commas.")
    ] = "doc_id,text",
    form: Annotated[
        Literal["jsonl", "parquet"], typer.Option("--format", help="JSON lines, or Parquet.")
    ] = "jsonl",
    shard_megabytes: Annotated[int, typer.Option(min=1, help="Size of a file, about.")] = 256,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write documents for other trainers: of some domains, of a condition, or in a run's learned proportions.

    Documents drawn by weights are in random order, each at most once; what an exhausted domain lacks the others give.
    """
    from data_catalog.export.documents import export_documents
    from flows.progress import transfer_progress

    with transfer_progress("{:,} of {:,} documents") as on_documents:
        made = export_documents(
            catalog,
            out,
            level=level,
            domains=domain or (),
            where=where,
            weights=weights,
            tokens=tokens,
            seed=seed,
            split=split,
            columns=[name.strip() for name in columns.split(",") if name.strip()],
            form=form,
            shard_megabytes=shard_megabytes,
            version=version,
            on_documents=on_documents,
        )
    if as_json:
        print_json({"folder": str(out), **made.model_dump(mode="json")})
        return
    print(
        f"{out}: {made.documents:,} documents, {made.tokens:,} tokens, {len(made.shards)} {form} files in {out / 'data'}"
    )
    exhausted = [share for share in made.shares if share.exhausted]
    if exhausted:
        weight, gave = (
            sum(share.weight for share in exhausted),
            sum(share.tokens for share in exhausted) / made.tokens,
        )
        print(
            f"  {len(exhausted)} of {len(made.shares)} domains of level {made.level} are exhausted: weight {weight:.1%}, gave {gave:.1%}"
        )
    if tokens and made.tokens < tokens and len(exhausted) == len(made.shares):
        print(
            f"  all domains with weight are exhausted: {tokens - made.tokens:,} tokens are missing"
        )
