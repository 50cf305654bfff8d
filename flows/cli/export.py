"""`clustermix export`: copy a catalog to an object store, or write documents for other trainers."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli import complete
from flows.cli.options import (
    CatalogArgument,
    JsonOption,
    LocalCatalogArgument,
    VersionOption,
    examples,
)
from flows.cli.output import print_json

if TYPE_CHECKING:
    from data_catalog.export.export_record import Exported

export_commands = typer.Typer(
    no_args_is_help=True,
    help="Copy a catalog to an object store, or write documents for other trainers.",
)


@export_commands.command(
    "catalog",
    epilog=examples(
        "export catalog catalogs/sample s3://bucket/catalogs/sample",
        "export catalog catalogs/sample /mnt/disk/sample --version 1",
    ),
)
def export_catalog_command(
    catalog: LocalCatalogArgument,
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="Destination: a folder or an object store, e.g. s3://bucket/catalogs/sample.",
            show_default=False,
        ),
    ],
    version: VersionOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of parallel uploads.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Copy a catalog with its earlier versions to an object store or a folder.

    Files that are already at the destination are skipped. After an interruption,
    the same command resumes. The file catalog.json is written last.
    """
    from data_catalog.transfer.copy import export_catalog
    from flows.progress import transfer_progress

    with transfer_progress("{:,} of {:,} files") as on_file:
        result = export_catalog(catalog, url, version=version, workers=workers, on_file=on_file)
    if as_json:
        print_json(asdict(result))
    else:
        print(
            f"{url}: version {result.version}, {result.files} files, {result.copied} of them "
            f"uploaded now ({result.bytes / 1e6:,.1f} MB)"
        )


@export_commands.command(
    "documents",
    epilog=examples(
        "export documents catalogs/sample out/law --level 64 --domain 44 --domain 47",
        "export documents catalogs/sample out/short --format parquet "
        "--where \"language = 'en' AND tokens < 500\"",
        "export documents catalogs/sample out/mixture --weights runs/sample-dga --tokens 5000000",
    ),
)
def export_documents_command(
    catalog: CatalogArgument,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="New folder. It gets the files data/shard_00000.jsonl, ... and export.json.",
        ),
    ],
    level: Annotated[
        int | None, typer.Option(help="Level of --domain.", autocompletion=complete.levels)
    ] = None,
    domain: Annotated[
        list[int] | None, typer.Option(help="Export only this domain. Repeatable.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION", help="SQL condition over the columns of the view documents."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Sample domains in proportion to the final weights of this finished run.",
            autocompletion=complete.runs,
        ),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Number of tokens to sample. Requires --weights.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the sample, with --weights.")] = 0,
    split: Annotated[
        Literal["train", "heldout", "all"],
        typer.Option(help="Split to export. Held-out documents are meant for evaluation."),
    ] = "train",
    columns: Annotated[
        str,
        typer.Option(metavar="LIST", help="Comma-separated columns of the view documents."),
    ] = "doc_id,text",
    form: Annotated[
        Literal["jsonl", "parquet"], typer.Option("--format", help="File format.")
    ] = "jsonl",
    shard_megabytes: Annotated[
        int, typer.Option(min=1, help="Approximate size of each file in megabytes.")
    ] = 256,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write documents for other trainers.

    Select documents by domain, by an SQL condition, or by the weights that a run
    has learned. Documents sampled by weight are in random order, and none occurs
    twice. If a domain is exhausted, the other domains replace its missing share.
    """
    from data_catalog.export.documents import export_documents
    from flows.progress import transfer_progress

    with transfer_progress("{:,} of {:,} documents") as on_documents:
        result = export_documents(
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
        print_json({"folder": str(out), **result.model_dump(mode="json")})
    else:
        _print_export(out, result, form, tokens)


def _print_export(out: Path, result: "Exported", form: str, tokens: int | None) -> None:
    print(
        f"{out}: {result.documents:,} documents, {result.tokens:,} tokens, "
        f"{len(result.shards)} {form} files in {out / 'data'}"
    )
    exhausted = [share for share in result.shares if share.exhausted]
    if exhausted:
        weight = sum(share.weight for share in exhausted)
        exported = sum(share.tokens for share in exhausted) / result.tokens
        print(
            f"  {len(exhausted)} of {len(result.shares)} domains of level {result.level} are "
            f"exhausted: {exported:.1%} of the tokens instead of {weight:.1%}"
        )
    if tokens and result.tokens < tokens and len(exhausted) == len(result.shares):
        print(
            f"  All domains with weight are exhausted: {tokens - result.tokens:,} tokens "
            "are missing."
        )
