"""The backend of finite differences, with two forward passes per sequence and no hooks.

The parameters move along v by a small step in either direction.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from data_catalog.errors import UserError
from trainer.alignment import Direction
from trainer.alignment.direction import local, norm_of
from trainer.model.engine import Engine
from trainer.sampling.batches import Batch

# Length of e v as a share of the parameters' norm. Relative errors of per-sequence scores, measured
# after 1, 20 and 300 steps, are 5e-4 to 6e-4 in fp32 and 1e-2 to 4e-2 in bfloat16. In fp32 a step
# of 1e-3 would give errors of 4e-3 to 1e-2, from the third derivative. In bfloat16 a step of 2e-4
# would give errors of up to 0.25, from rounding. TF32 has two bits more than bfloat16, and was not
# measured.
RELATIVE_STEP = {"float32": 2e-4, "tf32": 1e-3, "bfloat16": 1e-3}
MAXIMUM_ERROR = 0.05  # of the scores at the first update in a process, by `doubling_error`


@torch.no_grad()
def finite_differences(
    engine: Engine, direction: Direction, batch: Batch, step: float | None = None
) -> tuple[Float[Tensor, " sequences"], Float[Tensor, " sequences"]]:
    """Return the score and the loss of each sequence.

    The score is the central difference `[l(theta + e v) - l(theta - e v)] / 2e`, fp64, with l a
    sequence's sum of nats. The loss is the mean of the two values of l, fp32.

    The error of the difference is `e^2 / 6` times the third derivative along v, plus the rounding
    of the forward pass divided by e. e is chosen so that `|e v| = step |theta|`. Only the values of
    the parameters change, so that wrapped, compiled and sharded models are supported. The
    parameters are restored exactly from a copy, which is as large as one gradient.

    Args:
        engine: the model.
        direction: v.
        batch: this process's sequences.
        step: length of e v, as a share of the norm of theta. None: that of `RELATIVE_STEP`.
    """
    parameters = {name: p for name, p in engine.parameters().items() if name in direction.tensors}
    length = norm_of(engine, direction.tensors)
    step = RELATIVE_STEP[engine.training.precision] if step is None else step
    epsilon = step * norm_of(engine, parameters) / length if length > 0 else 0.0
    with _moved(parameters, direction.tensors) as move:
        move(epsilon)
        ahead = engine.losses(batch).double()
        move(-epsilon)
        behind = engine.losses(batch).double()
    scores = (ahead - behind) / (2 * epsilon) if epsilon > 0 else torch.zeros_like(ahead)
    return scores, ((ahead + behind) / 2).float()


def doubling_error(engine: Engine, direction: Direction, batch: Batch) -> float:
    """Return the largest change of a score when e is doubled, relative to the largest score.

    It is small if the step is neither too long nor so short that rounding dominates, and the loss
    has no jumps. (Halving e would double the error of rounding, and in bfloat16 overestimate the
    error two times.) The result is that of the process with the largest error. All processes call
    this together.
    """
    step = RELATIVE_STEP[engine.training.precision]
    once, twice = (
        finite_differences(engine, direction, batch, size)[0] for size in (step, 2 * step)
    )
    largest = float(once.abs().max()) if len(once) else 0.0
    change = float((twice - once).abs().max()) if len(once) else 0.0
    own = change / max(largest, torch.finfo(torch.float64).tiny)
    return max(map(float, engine.team.gather(repr(own))))


def check_differences(engine: Engine, direction: Direction, batch: Batch) -> None:
    """Check the error of the differences, once in a process. All processes call this together.

    Raises:
        UserError: The error is too large.
    """
    if "finite_difference" in engine.checked:
        return
    engine.checked.add("finite_difference")
    error = doubling_error(engine, direction, batch)
    if not error <= MAXIMUM_ERROR:
        raise UserError(
            f'mixture.backend = "finite_difference": The scores have an error of {error:.0%}. At '
            f'most {MAXIMUM_ERROR:.0%} is accepted. Use "ghost" or "exact", or '
            'training.precision = "float32".'
        )


@contextmanager
def _moved(
    parameters: Mapping[str, Tensor], direction: Mapping[str, Tensor]
) -> Iterator[Callable[[float], None]]:
    """Yield a function that sets the parameters to `theta + e v`; restore theta at the end.

    Adding and subtracting would not restore the last bit, and resuming must be bit-exact, so theta
    is copied.
    """
    copies = {name: local(p).clone() for name, p in parameters.items()}

    def move(epsilon: float) -> None:
        for name, theta in copies.items():
            local(parameters[name]).copy_(theta.add(local(direction[name]), alpha=epsilon))

    try:
        yield move
    finally:
        for name, theta in copies.items():
            local(parameters[name]).copy_(theta)
