"""Output of `clustermix train --dry-run`."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from flows.cli.summary import labelled_lines, print_rows, stdout_console

if TYPE_CHECKING:
    from trainer.preview import Preview


def print_preview(preview: "Preview") -> None:
    """Print the data, memory and work that a run would need."""
    lines = {
        "run": f"{preview.steps:,} steps, {preview.tokens:,} tokens from {preview.catalog}, "
        f"written to {preview.out}",
        "domains": f"{preview.reached_domains:,} of {preview.level:,} can be sampled, "
        f"{preview.empty_domains:,} have no training text",
        "padding": f"{preview.padding:.1%} of the places drawn are padding",
        "model": f"{preview.parameters:,} parameters"
        if preview.parameters
        else "unknown size (models on the Hugging Face hub are not looked up)",
    }
    if preview.memory_bytes:
        sizes = preview.memory_bytes.model_dump()
        total = _format_size(sizes.pop("total"))
        parts = ", ".join(f"{name} {_format_size(size)}" for name, size in sizes.items())
        lines["memory"] = f"about {total} per process ({parts})"
    if needs := preview.footprint:
        lines["state"] = (
            f"{_format_size(needs.copied_bytes)} per process as copies (ddp), "
            f"{_format_size(needs.sharded_bytes)} as shards of {needs.processes:,} (fsdp2), "
            "without activations"
        )
        lines["checkpoint"] = (
            f"{_format_size(needs.checkpoint_bytes)}, {needs.checkpoint_seconds:,.1f} s at 1 GB/s"
        )
        lines["work"] = (
            f"{needs.operations:.2g} operations, {needs.hours:,.2g} hours at 400 TFLOP/s a process"
        )
    if preview.fetched_bytes is not None and preview.cache_bytes is not None:
        lines["store"] = (
            f"about {_format_size(preview.fetched_bytes)} of sequences are fetched, each process "
            f"keeps at most {_format_size(preview.cache_bytes)} of them on this machine"
        )
    if preview.updates:
        measured = (
            "the last training batch"
            if preview.measures_batches
            else f"{preview.basis_sequences} per basis member"
        )
        lines["mixing"] = (
            f"{preview.updates:,} updates, one every {preview.update_every_steps:,} steps, with "
            f"{measured} and {preview.target_sequences} sequences of the target "
            f"({preview.scoring_share:.2%} more compute)"
        )
    if prior := preview.prior:
        lines["prior"] = (
            f"{prior.target_share:.0%} the target's own distribution, the rest natural: the run "
            f"draws the target's domains {prior.epochs:,.1f} times on average"
        )
        if prior.undiscounted_epochs > prior.epochs + 0.1:
            lines["prior"] += (
                f", instead of {prior.undiscounted_epochs:,.1f} times, because repeated data is "
                "worth less"
            )
    if preview.bounded_tokens is not None:
        lines["bounds"] = (
            f"at most {preview.bounded_tokens:,} tokens can be sampled, "
            f"{preview.used_up_domains:,} domains reach their bound before the end"
        )
    console = stdout_console()
    console.print(labelled_lines(lines))
    print_rows([member.model_dump() for member in preview.members])
    if preview.used_up:
        Console().print(Text("\nDomains exhausted before the end (initial weights)", style="bold"))
        print_rows([domain.model_dump() for domain in preview.used_up])


def _format_size(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB" if size >= 2**27 else f"{size / 2**20:,.0f} MiB"
