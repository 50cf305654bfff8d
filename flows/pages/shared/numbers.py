"""Numbers as the page's JSON holds them."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

MAXIMUM_CURVE_POINTS = 400  # of one curve
DIGITS = 6  # significant, of every number in the page


def json_numbers(value: Any, digits: int = DIGITS) -> Any:
    """`value` as JSON can hold it: nested lists of numbers of so many significant digits, null for what is not finite."""
    if isinstance(value, np.ndarray | list | tuple):
        return [json_numbers(item, digits) for item in value]
    if value is None or not math.isfinite(value):
        return None
    found = float(f"{value:.{digits}g}") if abs(value) < 1e15 else float(value)
    return int(found) if found.is_integer() else found


def spread(n: int, most: int = MAXIMUM_CURVE_POINTS) -> list[int]:
    """At most `most` indices over n, with the first and the last."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)).tolist()


def thinned(points: Float[np.ndarray, "points columns"]) -> Float[np.ndarray, "fewer columns"]:
    return points[spread(len(points))]
