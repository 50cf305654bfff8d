"""Error bounds of central differences that hold on any processor.

They follow from the method and the number format.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.alignment import Direction
from trainer.alignment.direction import norm_of
from trainer.alignment.finite_difference import RELATIVE_STEP
from trainer.model.engine import Engine

# Error of a float32 loss in units of its last place. Processors sum in different orders. Errors
# between 0.2 and 0.6 were measured over the sequences of a batch, and 1.0 for the worst sequence.
ROUNDINGS = 4
# Truncation error of a step of 2e-4 relative to the score, `e^2 / 6` times the third derivative. It
# is at most 3.2e-4 for the models of the tests, in float64, where rounding is negligible.
TRUNCATION = 1e-3


def step_length(engine: Engine, direction: Direction) -> float:
    """Return e, the factor of the direction in a central difference of the default step."""
    parameters = {name: p for name, p in engine.parameters().items() if name in direction.tensors}
    step = RELATIVE_STEP[engine.training.precision]
    return step * norm_of(engine, parameters) / norm_of(engine, direction.tensors)


def rounding_error(
    engine: Engine, direction: Direction, losses: Float[Tensor, " sequences"]
) -> Float[Tensor, " sequences"]:
    """Return a bound on the error of a score from rounding its two losses to float32.

    The error of each loss is at most `ROUNDINGS` units of its last place. The difference of the
    losses is divided by 2 e.
    """
    unit = torch.finfo(torch.float32).eps * losses.double()
    return ROUNDINGS * unit / step_length(engine, direction)
