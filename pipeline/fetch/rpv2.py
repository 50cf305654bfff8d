"""RedPajama-V2 from its servers, into the tree that `pipeline/source/rpv2.py` reads."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from data_catalog.errors import UserError
from pipeline.fetch.listing import Refused, Tag, read_listing
from pipeline.fetch.record import Entry, Record, open_record
from pipeline.fetch.schedule import OnFile, Summary, Wanted, fetch_files
from pipeline.fetch.transfer import Client
from pipeline.source.backoff import PATIENCE, Patience
from pipeline.source.rpv2 import SUFFIXES

BASE_URL = "https://data.together.xyz/redpajama-data-v2/v1.0.0"
HUB_NAME = "togethercomputer/RedPajama-Data-V2"
SAMPLE_LISTING = "sample_listings.txt"
BUCKETS = ("head", "middle", "tail")
COMPONENTS = (
    "documents",
    "quality_signals",
    "duplicates",
)  # asked for unless others are named: minhash is large, the sample has none


def fetch_rpv2(
    root: Path,
    *,
    sample: bool = False,
    snapshots: Sequence[str] = (),
    languages: Sequence[str] = (),
    buckets: Sequence[str] = ("head", "middle"),
    shards: Collection[int] | None = None,
    components: Sequence[str] = COMPONENTS,
    base_url: str | None = None,
    workers: int = 8,
    retry_absent: bool = False,
    patience: Patience = PATIENCE,
    on_file: OnFile | None = None,
) -> Summary:
    """Fetch the files that the listings name and the arguments choose; what is here already is not asked for again.

    `sample` fetches the 1-million-document sample on the Hugging Face hub (snapshot 2023-06, shards 0 to 9): all arguments that choose may
    then be left out. `shards` None means all that are listed. Of the tail there are only documents. Interrupted at any point, it goes on
    where it stopped when it is called again. Each file's outcome is a line of `root/fetch.jsonl`; failures are in the summary too.

    Raises:
        UserError: an argument is not one of the corpus's, no listing names such a file, the disk is too small, or another process
            is fetching into `root`.
    """
    _check(sample, snapshots, languages, buckets, components)
    with (
        open_record(root) as record,
        Client(
            workers, patience, _hub_headers() if sample and base_url is None else None
        ) as client,
    ):
        base = base_url.rstrip("/") if base_url else _hub_url() if sample else BASE_URL
        tags, summary = _listed(
            root,
            base,
            record,
            client,
            workers,
            [SAMPLE_LISTING] if sample else _listings(snapshots, languages, buckets),
        )
        chosen = [
            tag
            for tag in tags
            if (not snapshots or tag.snapshot in snapshots)
            and (not languages or tag.language in languages)
            and tag.bucket in buckets
            and (shards is None or tag.shard in shards)
        ]
        if not chosen:
            found = (
                f"{len(tags)} files are listed at {base}"
                if tags
                else f"nothing is listed at {base}"
            )
            raise UserError(
                f"fetch rpv2: {found}, none of them is chosen by snapshot, language, bucket and shards; ask for others"
            )
        wanted = [
            Wanted(
                f"{component}/{tag}{SUFFIXES[component]}",
                f"{base}/{component}/{tag}{SUFFIXES[component]}",
            )
            for tag in chosen
            for component in components
            if component == "documents" or tag.bucket != "tail"
        ]
        return summary + fetch_files(root, wanted, record, client, workers, retry_absent, on_file)


def _check(
    sample: bool,
    snapshots: Sequence[str],
    languages: Sequence[str],
    buckets: Sequence[str],
    components: Sequence[str],
) -> None:
    if not sample and not (snapshots and languages):
        raise UserError(
            "fetch rpv2: name at least one snapshot and one language, e.g. --snapshot 2023-06 --lang en, or --sample"
        )
    for field, values, pattern, example in (
        ("snapshot", snapshots, r"[0-9]{4}-[0-9]{2}", "2023-06"),
        ("lang", languages, "[a-z]{2,3}", "en"),
        ("bucket", buckets, "|".join(BUCKETS), " or ".join(BUCKETS)),
        ("component", components, "|".join(SUFFIXES), " or ".join(SUFFIXES)),
    ):
        for value in values:
            if not re.fullmatch(pattern, value):
                raise UserError(
                    f'fetch rpv2: {field} "{value}" is not one of the corpus; expected e.g. {example}'
                )


def _listings(
    snapshots: Sequence[str], languages: Sequence[str], buckets: Sequence[str]
) -> list[str]:
    parts = [
        part
        for part, inside in (("head_middle", {"head", "middle"}), ("tail", {"tail"}))
        if inside & set(buckets)
    ]
    return [
        f"{language}-{snapshot}-{part}.txt"
        for snapshot in snapshots
        for language in languages
        for part in parts
    ]


def _listed(
    root: Path, base: str, record: Record, client: Client, workers: int, names: Sequence[str]
) -> tuple[list[Tag], Summary]:
    """The tags of all listings, each once, and what became of the listings and of their lines that are no tags.

    Raises:
        UserError: no listing can be had.
    """
    folder = "" if names == [SAMPLE_LISTING] else "listings/"
    summary = fetch_files(
        root,
        [Wanted(f"listings/{name}", f"{base}/{folder}{name}") for name in names],
        record,
        client,
        workers,
        True,
        None,
    )
    there = [name for name in names if (root / "listings" / name).is_file()]
    if not there:
        why = summary.failures[0].detail if summary.failures else "they are absent"
        raise UserError(
            f"fetch rpv2: no listing at {base} ({', '.join(names)[:200]}): {why}; check snapshot, language and address"
        )
    tags: dict[Tag, None] = {}
    for name in there:
        for item in read_listing(
            (root / "listings" / name).read_text(encoding="utf-8", errors="replace")
        ):
            if isinstance(item, Refused):
                summary += Summary(refused=1)
                path = f"listings/{name}:{item.line}"
                if path not in record.entries:
                    record.add(Entry(path=path, state="refused", detail=item.text))
            else:
                tags[item] = None
    return list(tags), summary


def _hub_url() -> str:
    from huggingface_hub import hf_hub_url  # noqa: PLC0415

    return hf_hub_url(HUB_NAME, f"sample/{SAMPLE_LISTING}", repo_type="dataset").removesuffix(
        f"/{SAMPLE_LISTING}"
    )


def _hub_headers() -> dict[str, str]:
    from huggingface_hub import get_token  # noqa: PLC0415

    token = get_token()  # the sample is open to all; a token raises the hub's limits
    return {"Authorization": f"Bearer {token}"} if token else {}
