"""Marks of the variants: a colour and a shape each, the same in all charts and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from flows.comparison import Result, Role
from flows.experiment_tables import variants_of
from flows.pages.shared.markup import isolated

COLOURS = 16  # --v0 to --v15 in style.css
# SVG paths around the origin. The second one is for variants that repeat a colour.
_SHAPES: Mapping[Role, tuple[str, str]] = {
    "learned": ("M0-6.5L6.5 0L0 6.5L-6.5 0z", "M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z"),
    "control": ("M0-6L6 4.5H-6z", "M0 6L6-4.5H-6z"),
    "fixed": ("M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z", "M-4-4h8v8h-8z"),
}


@dataclass(frozen=True)
class VariantMark:
    """The mark of a variant. Controls are hollow."""

    variant: str
    role: Role
    colour: str
    """CSS colour."""
    path: str
    """SVG path."""


def variant_marks(results: Sequence[Result]) -> list[VariantMark]:
    """Return the marks of all variants: first learned mixtures, then controls, then fixed ones."""
    roles = {result.variant: result.role for result in reversed(results)}
    ordered = sorted(variants_of(results), key=lambda name: get_args(Role).index(roles[name]))
    return [
        VariantMark(
            name,
            roles[name],
            f"var(--v{i % COLOURS})",
            _SHAPES[roles[name]][i // COLOURS % 2],
        )
        for i, name in enumerate(ordered)
    ]


def marked_name(mark: VariantMark) -> str:
    """Return the mark and the name of a variant as HTML."""
    return (
        '<svg class="mark" viewBox="-8 -8 16 16" aria-hidden="true">'
        f'<path class="{mark.role}" d="{mark.path}" color="{mark.colour}"/></svg>'
        f"{isolated(mark.variant)}"
    )
