"""A trial of a model before training: one short sequence through all that a step does."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from data_catalog.errors import UserError, first_line
from trainer.alignment.direction import dots, gradients, target_direction
from trainer.alignment.finite_difference import finite_differences
from trainer.alignment.ghost import Ghost
from trainer.mixture_config import AlignmentBackend
from trainer.model.engine import Engine
from trainer.model.experts import check_balance, expert_parameters
from trainer.model.loss import TRIED_TOKENS
from trainer.sampling.batches import Batch

LOOK_AHEAD = 0.01  # change of an earlier loss, as a share of that of a changed token's own loss


def try_model(engine: Engine, path: str, backend: AlignmentBackend | None) -> None:
    """Check that a model can be trained, and its gradients scored.

    The model's parameters and gradients and the random numbers do not change. All processes of a
    run call this together.

    Args:
        engine: the model.
        path: path or name of the model, for messages.
        backend: the backend of the run, or None if gradients are not scored.

    Raises:
        UserError: The model has experts that cannot be balanced, sees later tokens, or fails, or
            the backend cannot score it.
    """
    check_balance("model.path", path, engine.model)
    if backend == "finite_difference" and any(expert_parameters(engine.model)):
        raise UserError(
            f'mixture.backend = "finite_difference": The loss of {path} jumps where a token '
            'changes its expert, so that the scores would be wrong. Use "ghost" or "exact".'
        )
    inputs = torch.arange(TRIED_TOKENS)[None] % engine.model.config.get_text_config().vocab_size
    batch = Batch(inputs, inputs.roll(-1, 1), TRIED_TOKENS)
    # Eager, so that this length of a sequence is not compiled.
    with torch.random.fork_rng(), torch.compiler.set_stance("force_eager"):
        try:
            with _refusing(f"model.path {path}: The model cannot be trained", "another model"):
                direction = target_direction(
                    engine, lambda: engine.backward(batch, regularised=True)[0]
                )
                _check_order(engine, path, inputs)
            reason = f'mixture.backend = "{backend}": The scores of this model are not available'
            with _refusing(reason, '"exact"'):
                if backend == "ghost":
                    with Ghost(engine, direction):
                        engine.backward(batch)
                elif backend == "finite_difference":
                    finite_differences(engine, direction, batch)
                elif backend == "exact":
                    engine.backward(batch)
                    dots(gradients(engine), direction.tensors)
        finally:
            engine.clear()


@contextmanager
def _refusing(reason: str, remedy: str) -> Iterator[None]:
    """Convert the errors of a model's code into one sentence."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"{reason} ({first_line(error)}). Use {remedy}.") from error


def _check_order(engine: Engine, path: str, inputs: torch.Tensor) -> None:
    """Check that a token does not change the losses before it."""
    other = inputs.clone()
    other[:, -1] = inputs[:, 0]
    both = torch.cat([inputs, other])
    first, second = engine.token_losses(Batch(both, both.roll(-1, 1)[:1].expand(2, -1), 1))
    change = (first - second).abs()
    if bool(change[:-1].max() > LOOK_AHEAD * change[-1]):
        raise UserError(
            f"model.path {path}: The model sees the tokens that it predicts. "
            "Use a causal language model."
        )
