"""What `clustermix train --dry-run` prints."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.cli.summary import print_rows

if TYPE_CHECKING:
    from trainer.preview import Preview


def print_preview(found: "Preview") -> None:
    """What a run would draw, need and cost."""
    memory = found.memory_bytes
    lines = {
        "run": f"{found.steps:,} steps, {found.tokens:,} tokens of {found.catalog}, into {found.out}",
        "domains": f"{found.reached_domains:,} of {found.level:,} can be drawn; {found.empty_domains:,} have no training text",
        "model": f"{found.parameters:,} parameters"
        if found.parameters
        else "on the hub: not looked at",
    }
    if memory:
        parts = {name: size for name, size in memory.model_dump().items() if name != "total"}
        lines["memory"] = f"about {_size(memory.total)} a process: " + ", ".join(
            f"{name} {_size(size)}" for name, size in parts.items()
        )
    if found.updates:
        lines["measuring"] = (
            f"{found.updates:,} updates, one every {found.update_every_steps:,} steps, on {found.basis_sequences} sequences a member and "
            f"{found.target_sequences} of the target: {found.scoring_share:.2%} more work"
        )
    if found.bounded_tokens is not None:
        lines["bounds"] = (
            f"{found.bounded_tokens:,} tokens may be drawn; {found.used_up_domains:,} domains reach their bound before the end"
        )
    shown = Table(box=None, show_header=False, pad_edge=False)
    for name, text in lines.items():
        shown.add_row(Text(name, style="bold"), Text(text))
    Console(width=None if Console().is_terminal else 200).print(shown)
    print_rows([member.model_dump() for member in found.members])
    if found.used_up:
        Console().print("\n[bold]used up before the end, by the initial weights[/bold]")
        print_rows([domain.model_dump() for domain in found.used_up])


def _size(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB" if size >= 2**27 else f"{size / 2**20:,.0f} MiB"
