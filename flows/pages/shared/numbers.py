"""Numbers for the JSON of a page."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

MAXIMUM_CURVE_POINTS = 400
SIGNIFICANT_DIGITS = 6  # of every number in a page


def json_numbers(value: Any, digits: int = SIGNIFICANT_DIGITS) -> Any:
    """Return nested lists of numbers with `digits` significant digits, None if not finite."""
    if isinstance(value, np.ndarray | list | tuple):
        return [json_numbers(item, digits) for item in value]
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}") if abs(value) < 1e15 else float(value)
    return int(rounded) if rounded.is_integer() else rounded


def spread_indices(count: int, maximum: int = MAXIMUM_CURVE_POINTS) -> list[int]:
    """Return at most `maximum` evenly spaced indices below `count`, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, maximum)).round().astype(int)).tolist()


def thin_points(points: Float[np.ndarray, "points columns"]) -> Float[np.ndarray, "fewer columns"]:
    """Return at most `MAXIMUM_CURVE_POINTS` of the points, evenly spaced."""
    return points[spread_indices(len(points))]
