"""Fetch RedPajama-V2 from its servers, as the tree that `pipeline/source/rpv2.py` reads."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from data_catalog.errors import UserError
from pipeline.fetch.listing import FileTag, RefusedLine, read_listing
from pipeline.fetch.record import FetchEntry, FetchRecord, open_record
from pipeline.fetch.schedule import FetchSummary, OnFetchedFile, RequestedFile, fetch_files
from pipeline.fetch.transfer import HttpClient
from pipeline.source.backoff import DEFAULT_RETRIES, RetryPolicy
from pipeline.source.rpv2 import COMPONENT_SUFFIXES

_BASE_URL = "https://data.together.xyz/redpajama-data-v2/v1.0.0"
_HUB_NAME = "togethercomputer/RedPajama-Data-V2"
_SAMPLE_LISTING = "sample_listings.txt"
_BUCKETS = ("head", "middle", "tail")
# Fetched by default. `minhash` is large, and the sample has none.
DEFAULT_COMPONENTS = ("documents", "quality_signals", "duplicates")


def fetch_rpv2(
    root: Path,
    *,
    sample: bool = False,
    snapshots: Sequence[str] = (),
    languages: Sequence[str] = (),
    buckets: Sequence[str] = ("head", "middle"),
    shards: Collection[int] | None = None,
    components: Sequence[str] = DEFAULT_COMPONENTS,
    base_url: str | None = None,
    workers: int = 8,
    retry_absent: bool = False,
    retries: RetryPolicy = DEFAULT_RETRIES,
    on_file: OnFetchedFile | None = None,
) -> FetchSummary:
    """Fetch the files that the corpus lists and the arguments choose.

    A fetch that was interrupted at any point resumes when it is called again, and files that are
    complete are not requested. Each file's outcome is a line of `root/fetch.jsonl`. The tail of the
    corpus has documents only.

    Args:
        root: Folder for the tree.
        sample: Fetch from the 1-million-document sample on the Hugging Face hub (snapshot 2023-06,
            shards 0 to 9). `snapshots` and `languages` may then be empty.
        snapshots: Snapshots like `2023-06`.
        languages: Languages like `en`.
        buckets: Any of `head`, `middle` and `tail`.
        shards: Numbers of shards. None for all.
        components: Kinds of files.
        base_url: URL of a mirror.
        workers: Number of files that are fetched at once.
        retry_absent: Request files again that the server did not have.
        retries: Retries after network errors.
        on_file: Called after each file.

    Returns:
        The number of files by outcome, and the failures.

    Raises:
        UserError: An argument does not fit the corpus, no listing has such a file, the disk is too
            small, or another process is fetching into `root`.
    """
    _check(sample, snapshots, languages, buckets, components)
    with (
        open_record(root) as record,
        HttpClient(
            workers, retries, _hub_headers() if sample and base_url is None else None
        ) as client,
    ):
        base = base_url.rstrip("/") if base_url else _hub_url() if sample else _BASE_URL
        tags, summary = _listed(
            root,
            base,
            record,
            client,
            workers,
            [_SAMPLE_LISTING] if sample else _listings(snapshots, languages, buckets),
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
            raise UserError(
                f"fetch rpv2: none of the {len(tags)} files that are listed at {base} has the "
                "requested snapshot, language, bucket and shards. Request others."
            )
        wanted = [
            RequestedFile(
                f"{component}/{tag}{COMPONENT_SUFFIXES[component]}",
                f"{base}/{component}/{tag}{COMPONENT_SUFFIXES[component]}",
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
            "fetch rpv2: the options --snapshot and --lang, or --sample, are missing. "
            "Give at least one snapshot and one language, for example --snapshot 2023-06 --lang en."
        )
    for field, values, pattern, example in (
        ("snapshot", snapshots, r"[0-9]{4}-[0-9]{2}", "2023-06"),
        ("lang", languages, "[a-z]{2,3}", "en"),
        ("bucket", buckets, "|".join(_BUCKETS), " or ".join(_BUCKETS)),
        ("component", components, "|".join(COMPONENT_SUFFIXES), " or ".join(COMPONENT_SUFFIXES)),
    ):
        for value in values:
            if not re.fullmatch(pattern, value):
                raise UserError(
                    f'fetch rpv2: {field} "{value}" is not in the corpus. '
                    f"Expected for example {example}."
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
    root: Path,
    base: str,
    record: FetchRecord,
    client: HttpClient,
    workers: int,
    names: Sequence[str],
) -> tuple[list[FileTag], FetchSummary]:
    """Return the tags of all listings, each once, and the outcomes of the listings.

    Raises:
        UserError: No listing can be fetched.
    """
    folder = "" if names == [_SAMPLE_LISTING] else "listings/"
    summary = fetch_files(
        root,
        [RequestedFile(f"listings/{name}", f"{base}/{folder}{name}") for name in names],
        record,
        client,
        workers,
        True,
        None,
    )
    available = [name for name in names if (root / "listings" / name).is_file()]
    if not available:
        reason = summary.failures[0].detail if summary.failures else "the server has none"
        raise UserError(
            f"fetch rpv2: no listing was fetched from {base} ({', '.join(names)[:200]}): {reason}. "
            "Check the snapshot, the language and the URL."
        )
    tags: dict[FileTag, None] = {}
    for name in available:
        for item in read_listing(
            (root / "listings" / name).read_text(encoding="utf-8", errors="replace")
        ):
            if isinstance(item, RefusedLine):
                summary += FetchSummary(refused=1)
                path = f"listings/{name}:{item.line}"
                if path not in record.entries:
                    record.add(FetchEntry(path=path, state="refused", detail=item.text))
            else:
                tags[item] = None
    return list(tags), summary


def _hub_url() -> str:
    from huggingface_hub import hf_hub_url  # noqa: PLC0415

    return hf_hub_url(_HUB_NAME, f"sample/{_SAMPLE_LISTING}", repo_type="dataset").removesuffix(
        f"/{_SAMPLE_LISTING}"
    )


def _hub_headers() -> dict[str, str]:
    from huggingface_hub import get_token  # noqa: PLC0415

    token = get_token()  # optional: a token raises the hub's limits
    return {"Authorization": f"Bearer {token}"} if token else {}
