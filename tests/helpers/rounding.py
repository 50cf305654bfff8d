"""Error bounds of central differences, from the method and the number format, so that they hold on any processor."""

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.alignment import Direction
from trainer.alignment.direction import norm_of
from trainer.alignment.finite_difference import RELATIVE_STEP
from trainer.model.engine import Engine

# Error of a float32 loss in units of its last place. Processors sum in different orders: between 0.2 and 0.6 were seen
# over the sequences of a batch, and 1.0 for the worst single one.
ROUNDINGS = 4
# Share of a score that a step of 2e-4 cuts off, `e^2 / 6` times the third derivative. In float64, where nothing is
# rounded, up to 3.2e-4 for the tests' models.
TRUNCATION = 1e-3


def step_length(engine: Engine, direction: Direction) -> float:
    """Return e, the factor of the direction in a central difference of the default step."""
    parameters = {name: p for name, p in engine.parameters().items() if name in direction.tensors}
    step = RELATIVE_STEP[engine.training.precision]
    return step * norm_of(engine, parameters) / norm_of(engine, direction.tensors)


def rounding_error(
    engine: Engine, direction: Direction, losses: Float[Tensor, " sequences"]
) -> Float[Tensor, " sequences"]:
    """Return the bound of a score's error that comes from rounding the two losses of its difference to float32.

    Each of the two errs by at most `ROUNDINGS` units of its last place, and their difference is divided by 2 e.
    """
    unit = torch.finfo(torch.float32).eps * losses.double()
    return ROUNDINGS * unit / step_length(engine, direction)
